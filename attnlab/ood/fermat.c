/* The loops of lens depth with the Fermat distance, compiled when first needed (see fermat.py).

   A function does rows [begin, end) of its output, so that threads can share the work. Matrices are (rows, N), one row after another.
   N sample points, P queries, D features. No function allocates, checks or knows of Python. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
typedef ptrdiff_t at;

/* |x - q|^(2 whole + odd), odd 0 or 1 */
void hops(at begin, at end, at N, at D, at whole, at odd, const double *query, const double *point_DN, double *out) {
    for (at p = begin; p < end; p++) {
        double *restrict o = out + p * N;
        for (at j = 0; j < N; j++) o[j] = 0;
        for (at c = 0; c < D; c++) {
            const double x = query[p * D + c], *restrict y = point_DN + c * N;
            for (at j = 0; j < N; j++) o[j] += (x - y[j]) * (x - y[j]);
        }
        for (at j = 0; j < N; j++) {
            double squared = o[j], power = odd ? sqrt(squared) : 1;
            for (at k = 0; k < whole; k++) power *= squared;
            o[j] = power;
        }
    }
}

static void through(at N, double hop, const double *restrict rest, double *restrict best) {
    for (at j = 0; j < N; j++) best[j] = hop + rest[j] < best[j] ? hop + rest[j] : best[j];
}

/* Floyd-Warshall, of matrices begin to end of a stack */
void shortest(at begin, at end, at N, double *inner) {
    for (double *m = inner + begin * N * N; m < inner + end * N * N; m += N * N)
        for (at k = 0; k < N; k++)
            for (at i = 0; i < N; i++)
                if (i != k) through(N, m[i * N + k], m + k * N, m + i * N);
}

/* min_i hop_i + inner_ij; an i that is better reached through another point is on no shortest path as the first stop */
void reach(at begin, at end, at N, const double *inner, const double *hop, double *out) {
    for (at p = begin; p < end; p++) {
        const double *w = hop + p * N;
        double *o = out + p * N;
        at near = 0;
        for (at i = 1; i < N; i++) if (w[i] < w[near]) near = i;
        for (at j = 0; j < N; j++) o[j] = w[near] + inner[near * N + j];
        for (at i = 0; i < N; i++) if (w[i] < o[i]) through(N, w[i], inner + i * N, o);
    }
}

/* A distance as 15 bits that keep its order, coarsely: 10 bits of mantissa over 32 powers of two below 1 / unit */
void keys(at begin, at end, at N, const double *unit, const double *distance, int16_t *out) {
    for (at i = begin * N; i < end * N; i++) {
        float ratio = (float)(distance[i] * *unit), one = 1;
        int32_t bits, top;
        memcpy(&bits, &ratio, 4), memcpy(&top, &one, 4);
        bits = (bits >> 13) - (top >> 13) + 32766;
        out[i] = (int16_t)(bits < 0 ? 0 : bits > 32767 ? 32767 : bits);
    }
}

/* Pairs i > j with max(query_i, query_j) <= inner_ij. Rows are compared by keys; a row with two equal keys is compared again, exactly. */
void lenses(at begin, at end, at N, const double *inner, const int16_t *inner_key, const double *query, const int16_t *query_key, int64_t *out) {
    for (at p = begin; p < end; p += 4) { /* four queries share a row of inner; the last one may be done again */
        const int16_t *v[4];
        at row[4];
        int64_t total[4] = {0};
        for (at q = 0; q < 4; q++) row[q] = (p + q < end ? p + q : end - 1) * N, v[q] = query_key + row[q];
        for (at i = 1; i < N; i++) {
            const int16_t *r = inner_key + i * N, a[4] = {v[0][i], v[1][i], v[2][i], v[3][i]};
            int16_t outside[4] = {0};
            uint16_t gap[4] = {65535, 65535, 65535, 65535};
            for (at j = 0; j < i; j++)
                for (at q = 0; q < 4; q++) {
                    int16_t room = r[j] - (v[q][j] > a[q] ? v[q][j] : a[q]);
                    outside[q] += room >> 15;
                    gap[q] = (uint16_t)room < gap[q] ? (uint16_t)room : gap[q];
                }
            for (at q = 0; q < 4; q++) {
                if (gap[q]) { total[q] += i + outside[q]; continue; }
                const double *s = inner + i * N, *e = query + row[q];
                for (at j = 0; j < i; j++) total[q] += (e[j] > e[i] ? e[j] : e[i]) <= s[j];
            }
        }
        for (at q = 0; q < 4 && p + q < end; q++) out[p + q] = total[q];
    }
}
