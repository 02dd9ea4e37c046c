/* The loops of lens depth with the Fermat distance, compiled when first needed (see fermat.py).

   A function does rows [begin, end) of its output, so that threads can share the work. Matrices are (rows, N), one row after another.
   N sample points, P queries, D features. Nothing here allocates, checks, or needs a library. Loops are written to be vectorised. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
typedef ptrdiff_t at;

/* |x - q|^(2 whole + odd), odd being 0 or 1; 64 points at a time stay in the cache */
void hops(at begin, at end, at N, at D, at whole, at odd, const double *query_PD, const double *point_DN, double *out_PN) {
    for (at start = 0; start < N; start += 64) {
        const at n = N - start < 64 ? N - start : 64;
        for (at p = begin; p < end; p++) {
            double squared[64] = {0}, *restrict power = out_PN + p * N + start;
            for (at c = 0; c < D; c++) {
                const double x = query_PD[p * D + c], *y = point_DN + c * N + start;
                for (at j = 0; j < n; j++) squared[j] += (x - y[j]) * (x - y[j]);
            }
            for (at j = 0; j < n; j++) power[j] = odd ? sqrt(squared[j]) : 1;
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

/* Distances as integers that keep their order up to rounding: floats that are not negative order like their bits. Blocks of W rows lie
   transposed, (N, W) each. */
void keys(at begin, at end, at N, at W, const double *unit, const double *distance, int32_t *out) {
    for (at p = begin; p < end; p++) {
        int32_t *o = out + p / W * N * W + p % W;
        for (at j = 0; j < N; j++) {
            const float ratio = (float)(distance[p * N + j] * *unit);
            memcpy(o + j * W, &ratio, 4);
        }
    }
}

/* Pairs i > j with max(d_i, d_j) <= D_ij, of blocks begin to end of the P queries. The keys decide, except in a row where two of them are
   equal, a matter of rounding: there the distances do. */
void lenses(at begin, at end, at N, at P, const double *inner_NN, const int32_t *inner_key_NN, const double *query_PN,
            const int32_t *query_key, int64_t *out_P) {
    for (at block = begin; block < end; block++) {
        const int32_t *v = query_key + block * N * 32;
        const at rows = P - block * 32 < 32 ? P - block * 32 : 32;
        int64_t total[32] = {0};
        for (at i = 1; i < N; i++) {
            const int32_t *pair = inner_key_NN + i * N, *a = v + i * 32;
            int32_t outside[32] = {0};
            uint32_t gap[32];
            for (at q = 0; q < 32; q++) gap[q] = UINT32_MAX;
            for (at j = 0; j < i; j++) {
                const int32_t *b = v + j * 32;
                for (at q = 0; q < 32; q++) {
                    const int32_t room = pair[j] - (a[q] > b[q] ? a[q] : b[q]);
                    outside[q] += room >> 31; /* -1 if negative */
                    gap[q] = (uint32_t)room < gap[q] ? (uint32_t)room : gap[q]; /* 0 if two keys are equal */
                }
            }
            for (at q = 0; q < rows; q++) {
                int64_t inside = i + outside[q];
                if (gap[q] == 0) {
                    const double *D = inner_NN + i * N, *d = query_PN + (block * 32 + q) * N;
                    inside = 0;
                    for (at j = 0; j < i; j++) inside += (d[j] > d[i] ? d[j] : d[i]) <= D[j];
                }
                total[q] += inside;
            }
        }
        for (at q = 0; q < rows; q++) out_P[block * 32 + q] = total[q];
    }
}
