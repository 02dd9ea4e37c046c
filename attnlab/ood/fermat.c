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

/* Floyd and Warshall on a symmetric matrix with zeros on its diagonal, K pivots at a time, on and above the diagonal only. Column k of the
   panel is row k of the matrix when the turn of pivot k comes; what the pivots do elsewhere are then sums and minima of the panel's: those
   of the loop over single pivots, so the results are the same to the bit. */
enum { K = 64, W = 32 };

static at upper(at i, at j, at N) { return i < j ? i * N + j : j * N + i; }

/* The panel (N, K) of pivots first, first + 1, ..., infinite beyond the last one; and their own rows brought up to date, in `row` (K, N). */
void pivots(at begin, at end, at N, at first, double *inner, double *panel, double *row) {
    const at n = N - first < K ? N - first : K;
    (void)begin, (void)end;
    for (at j = 0; j < N; j++)
        for (at k = 0; k < n; k++) row[k * N + j] = inner[upper(j, first + k, N)];
    for (at j = 0; j < N; j++)
        for (at k = n; k < K; k++) panel[j * K + k] = INFINITY;
    for (at k = 0; k < n; k++) {
        for (at j = 0; j < N; j++) panel[j * K + k] = row[k * N + j];
        for (at i = 0; i < n; i++)
            if (i != k) through(N, row[i * N + first + k], row + k * N, row + i * N);
    }
    for (at j = 0; j < N; j++)
        for (at k = 0; k < n; k++) inner[upper(j, first + k, N)] = row[k * N + j];
}

/* inner_ij = min(inner_ij, min_k panel_ik + panel_jk) for W columns j and the rows down to the diagonal */
static void column(at start, at N, double *inner, const double *panel) {
    const at n = N - start < W ? N - start : W;
    double tile[K * W];
    for (at k = 0; k < K; k++)
        for (at j = 0; j < W; j++) tile[k * W + j] = j < n ? panel[(start + j) * K + k] : INFINITY;
    for (at i = 0; i < start + n; i++) {
        double best[W], *d = inner + i * N + start;
        for (at j = 0; j < W; j++) best[j] = j < n ? d[j] : 0;
        for (at k = 0; k < K; k += 4) {
            const double *to = panel + i * K + k, *p = tile + k * W;
            const double a = to[0], b = to[1], c = to[2], e = to[3];
            for (at j = 0; j < W; j++) {
                const double ab = a + p[j] < b + p[W + j] ? a + p[j] : b + p[W + j];
                const double ce = c + p[2 * W + j] < e + p[3 * W + j] ? c + p[2 * W + j] : e + p[3 * W + j];
                const double least = ab < ce ? ab : ce;
                best[j] = least < best[j] ? least : best[j];
            }
        }
        for (at j = 0; j < n; j++) d[j] = best[j];
    }
}

/* All columns: the first and the last W, the second and the last but one, ..., as later ones are longer. Rows: these pairs, N / 2W. */
void relax(at begin, at end, at N, double *inner, const double *panel) {
    const at columns = (N + W - 1) / W;
    for (at c = begin; c < end; c++) {
        column(c * W, N, inner, panel);
        if (columns - 1 - c > c) column((columns - 1 - c) * W, N, inner, panel);
    }
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
