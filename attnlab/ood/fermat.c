/* The loops of lens depth with the Fermat distance, compiled when first needed (see fermat.py).

   A function does rows [begin, end) of its output, so that threads can share the work. Matrices are (rows, N), one row after another.
   N sample points, P queries, D features. Nothing here allocates, checks, or needs a library. Loops are written to be vectorised. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
typedef ptrdiff_t at;

/* |x - q|^(2 whole + odd), odd being 0 or 1 */
void hops(at begin, at end, at N, at D, at whole, at odd, const double *query_PD, const double *point_DN, double *out_PN) {
    for (at p = begin; p < end; p++) {
        double *restrict o = out_PN + p * N;
        for (at j = 0; j < N; j++) o[j] = 0;
        for (at c = 0; c < D; c++) {
            const double x = query_PD[p * D + c], *restrict y = point_DN + c * N;
            for (at j = 0; j < N; j++) o[j] += (x - y[j]) * (x - y[j]);
        }
        for (at start = 0; start < N; start += 64) {
            const at n = N - start < 64 ? N - start : 64;
            double squared[64], *restrict power = o + start;
            for (at j = 0; j < n; j++) squared[j] = power[j], power[j] = odd ? sqrt(squared[j]) : 1;
            for (at k = 0; k < whole; k++)
                for (at j = 0; j < n; j++) power[j] *= squared[j];
        }
    }
}

static void through(at N, double hop, const double *restrict rest, double *restrict best) {
    for (at j = 0; j < N; j++) best[j] = hop + rest[j] < best[j] ? hop + rest[j] : best[j];
}

/* Floyd-Warshall in place, of the matrices begin to end of a stack */
void shortest(at begin, at end, at N, double *inner) {
    for (double *m = inner + begin * N * N; m < inner + end * N * N; m += N * N)
        for (at k = 0; k < N; k++)
            for (at i = 0; i < N; i++)
                if (i != k) through(N, m[i * N + k], m + k * N, m + i * N);
}

/* min_i hop_i + inner_ij. An i that is better reached through another point is never the first stop of a shortest path. */
void reach(at begin, at end, at N, const double *inner_NN, const double *hop_PN, double *out_PN) {
    for (at p = begin; p < end; p++) {
        const double *w = hop_PN + p * N;
        double *o = out_PN + p * N;
        at near = 0;
        for (at i = 1; i < N; i++) if (w[i] < w[near]) near = i;
        for (at j = 0; j < N; j++) o[j] = w[near] + inner_NN[near * N + j];
        for (at i = 0; i < N; i++) if (w[i] < o[i]) through(N, w[i], inner_NN + i * N, o);
    }
}

/* Distances as 15 bits that keep their order: coarse, but quick to compare. Blocks of W rows lie transposed, (N, W) each. */
void keys(at begin, at end, at N, at W, at lowest, at shift, const double *unit, const double *distance, int16_t *out) {
    for (at p = begin; p < end; p++) {
        int16_t *o = out + p / W * N * W + p % W;
        for (at j = 0; j < N; j++) {
            const float ratio = (float)(distance[p * N + j] * *unit);
            int32_t bits;
            memcpy(&bits, &ratio, 4); /* from 0 up, floats order like their bits */
            bits = (bits - (int32_t)lowest) >> shift;
            o[j * W] = bits < 0 ? 0 : bits > 32767 ? 32767 : bits;
        }
    }
}

/* Pairs i > j with max(d_i, d_j) <= D_ij, for blocks begin to end of the P queries. The keys decide unless two are equal: then the exact
   distances decide the whole row i anew. */
void lenses(at begin, at end, at N, at P, const double *inner_NN, const int16_t *inner_key_NN, const double *query_PN,
            const int16_t *query_key, int64_t *out_P) {
    for (at block = begin; block < end; block++) {
        const int16_t *v = query_key + block * N * 32;
        int64_t total[32] = {0};
        for (at i = 1; i < N; i++) {
            const int16_t *pair = inner_key_NN + i * N, *a = v + i * 32;
            int16_t outside[32] = {0};
            uint16_t gap[32];
            for (at q = 0; q < 32; q++) gap[q] = UINT16_MAX;
            for (at j = 0; j < i; j++) {
                const int16_t *b = v + j * 32;
                for (at q = 0; q < 32; q++) {
                    const int16_t room = pair[j] - (a[q] > b[q] ? a[q] : b[q]);
                    outside[q] += room >> 15;
                    gap[q] = (uint16_t)room < gap[q] ? (uint16_t)room : gap[q]; /* 0 where two keys are equal */
                }
            }
            for (at q = 0; q < 32; q++) {
                const at p = block * 32 + q;
                if (gap[q]) { total[q] += i + outside[q]; continue; }
                const double *D = inner_NN + i * N, *d = query_PN + (p < P ? p : 0) * N, own = d[i];
                int64_t inside = 0;
                for (at j = 0; j < i; j++) {
                    const double far = d[j] > own ? d[j] : own;
                    inside += far <= D[j] ? 1 : 0;
                }
                total[q] += inside;
            }
        }
        for (at q = 0; q < 32 && block * 32 + q < P; q++) out_P[block * 32 + q] = total[q];
    }
}
