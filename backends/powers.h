/* Packed symmetric tensors (backends/powers.py).

   S[s][o][·] = ⟨M[o], g[s] ⊗ ·⟩ for symmetric matrices M[o], packed by rows of the lower triangle with √2 off the
   diagonal. Every number t = M[o][i][j] is read once: it serves S[i] with g[j] and S[j] with g[i].
   Lanes are samples, so nothing is summed across lanes; rows go together, so that S[j] is loaded once for all of them. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 8
#define LINE 16 /* floats of a cache line */
#ifdef __AVX512VL__
#define ROWS 8 /* sums and latents of eight rows take 16 of 32 registers */
#else
#define ROWS 4
#endif
#define EACH_ROW _Pragma("GCC unroll 8") for (int k = 0; k < ROWS; k++)
typedef float lanes __attribute__((vector_size(4 * LANES)));

/* One M[o] (rank(rank+1)/2) and LANES samples: s = 2^½ ⟨m, g ⊗ ·⟩, both (rank, LANES). */
static void half_of_one(const float *restrict m, const lanes *restrict g, lanes *restrict s, int64_t rank)
{
    const float root2 = 1.41421356237309505f;
    for (int64_t i = 0; i < rank; i++)
        s[i] = (lanes){0};
    int64_t i = 0;
    for (; i + ROWS <= rank; i += ROWS) {
        const float *t[ROWS];
        lanes gi[ROWS], sum[ROWS];
        EACH_ROW {
            t[k] = m + (i + k) * (i + k + 1) / 2;
            gi[k] = g[i + k];
            sum[k] = (lanes){0};
        }
        for (int64_t start = 0; start < i; start += LINE) {
            EACH_ROW __builtin_prefetch(t[k] + ROWS * (i + k) + ROWS * (ROWS + 1) / 2 + start, 0, 2); /* the next rows */
            const int64_t stop = start + LINE < i ? start + LINE : i;
            for (int64_t j = start; j < stop; j++) {
                const lanes x = g[j];
                lanes even = {0}, odd = s[j];
                EACH_ROW {
                    const float number = t[k][j];
                    sum[k] += number * x;
                    if (k % 2)
                        odd += number * gi[k];
                    else
                        even += number * gi[k];
                }
                s[j] = even + odd;
            }
        }
        EACH_ROW {
            _Pragma("GCC unroll 8") for (int l = 0; l < ROWS; l++) /* of the square on the diagonal */
                sum[k] += (l < k ? t[k][i + l] : l > k ? t[l][i + k] : root2 * t[k][i + k]) * gi[l];
        }
        EACH_ROW s[i + k] = sum[k];
    }
    for (; i < rank; i++) {
        const float *t = m + i * (i + 1) / 2;
        lanes sum = root2 * t[i] * g[i];
        for (int64_t j = 0; j < i; j++) {
            sum += t[j] * g[j];
            s[j] += t[j] * g[i];
        }
        s[i] = sum;
    }
}

/* Outer indices first … last - 1 of m (outer, rank(rank+1)/2), g (groups, rank, LANES), scratch (rank, LANES),
   out (samples, outer, rank), whole (samples, outer): ⟨M[o], g[s] ⊗ g[s]⟩. */
__attribute__((visibility("default")))
void tpc_half(const float *m, const float *g, float *scratch, float *out, float *whole, int64_t first, int64_t last,
              int64_t outer, int64_t samples, int64_t rank)
{
    const float scale = 0.70710678118654752f;
    const size_t size = (size_t)rank * (rank + 1) / 2, stride = (size_t)outer * rank;
    for (int64_t o = first; o < last; o++)
        for (int64_t base = 0; base < samples; base += LANES) {
            const lanes *const latents = (const lanes *)(g + base * rank), *const halves = (const lanes *)scratch;
            lanes even = {0}, odd = {0};
            half_of_one(m + o * size, latents, (lanes *)scratch, rank);
            for (int64_t i = 0; i + 1 < rank; i += 2) {
                even += halves[i] * latents[i];
                odd += halves[i + 1] * latents[i + 1];
            }
            if (rank % 2)
                even += halves[rank - 1] * latents[rank - 1];
            even = scale * (even + odd);
            const int64_t n = samples - base < LANES ? samples - base : LANES;
            for (int64_t b = 0; b < n; b++) {
                float *to = out + (base + b) * stride + o * rank;
                whole[(base + b) * outer + o] = even[b];
                for (int64_t i = 0; i < rank; i++)
                    to[i] = scale * scratch[i * LANES + b];
            }
        }
}

/* Monomials of one degree whose largest index is start … stop - 1, times their scale: for every row g_i times the first
   sizes[i] monomials of one degree less; g (rows, rank), low (rows, lows), out (rows, Σ sizes). */
__attribute__((visibility("default")))
void tpc_monomials(const float *g, const float *low, const float *restrict scale, const int64_t *sizes,
                   float *restrict out, int64_t rows, int64_t rank, int64_t lows, int64_t start, int64_t stop)
{
    for (int64_t m = 0; m < rows; m++) {
        const float *restrict from = low + m * lows, *weight = scale;
        for (int64_t i = start; i < stop; i++) {
            const float number = g[m * rank + i];
            for (int64_t j = 0; j < sizes[i]; j++)
                out[j] = number * from[j] * weight[j];
            out += sizes[i];
            weight += sizes[i];
        }
    }
}

#ifdef __AVX512F__ /* with fewer registers BLAS is as fast */

#define COLUMNS 12 /* sums of 2 × 12 vectors take 24 of 32 registers */
#define STRIP 32   /* floats of two vectors */
#define DEPTH 512
typedef float vector __attribute__((vector_size(4 * LINE)));
typedef float unaligned __attribute__((vector_size(4 * LINE), aligned(4)));

/* total[c][…] = Σ over rows of x[row][…] a[row][c] */
static inline void tile(const vector *x, const float *a, int64_t rows, vector total[COLUMNS][2])
{
    vector sum[COLUMNS][2];
    for (int c = 0; c < COLUMNS; c++)
        sum[c][0] = sum[c][1] = (vector){0};
    for (int64_t k = 0; k < rows; k++, x += 2, a += COLUMNS)
        _Pragma("GCC unroll 12") for (int c = 0; c < COLUMNS; c++) {
            sum[c][0] += x[0] * a[c];
            sum[c][1] += x[1] * a[c];
        }
    for (int c = 0; c < COLUMNS; c++) {
        total[c][0] = sum[c][0];
        total[c][1] = sum[c][1];
    }
}

/* target (outer rows of `stride` numbers) += aᵀ b for a (groups of 12, rows, 12) and b (rows, n); x a scratch of
   (n / 32 rounded up, 512, 32). */
__attribute__((visibility("default")))
void tpc_add(float *target, const float *a, const float *b, float *x, int64_t rows, int64_t n, int64_t stride,
             int64_t outer)
{
    for (int64_t begin = 0; begin < rows; begin += DEPTH) {
        const int64_t depth = rows - begin < DEPTH ? rows - begin : DEPTH;
        for (int64_t k = 0; k < depth; k++)
            for (int64_t start = 0; start < n; start += STRIP) {
                float *to = x + start * DEPTH + k * STRIP;
                const float *from = b + (begin + k) * n + start;
                const int64_t here = n - start < STRIP ? n - start : STRIP;
                if (here == STRIP)
                    memcpy(to, from, STRIP * sizeof(float));
                else
                    for (int64_t j = 0; j < STRIP; j++)
                        to[j] = j < here ? from[j] : 0;
            }
        for (int64_t o = 0; o < outer; o += COLUMNS) {
            const int64_t count = outer - o < COLUMNS ? outer - o : COLUMNS;
            for (int64_t start = 0; start < n; start += STRIP) {
                float *to = target + o * stride + start;
                vector total[COLUMNS][2];
                for (int64_t c = 0; c < count; c++) {
                    __builtin_prefetch(to + c * stride, 1);
                    __builtin_prefetch(to + c * stride + LINE, 1);
                }
                tile((const vector *)(x + start * DEPTH), a + o * rows + begin * COLUMNS, depth, total);
                for (int64_t c = 0; c < count; c++, to += stride)
                    if (start + STRIP <= n) {
                        ((unaligned *)to)[0] += total[c][0];
                        ((unaligned *)to)[1] += total[c][1];
                    } else {
                        for (int64_t j = 0; j < n - start; j++)
                            to[j] += total[c][j / LINE][j % LINE];
                    }
            }
        }
    }
}

#endif
