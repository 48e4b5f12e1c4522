/* Products of numbers rounded to bfloat16 with sums in float: two multiply-adds to a lane and instruction, twice the
   rate of floats. Everything comes down to one tile: 32 lanes times 8 columns, a sum over pairs of numbers. */

#include <stdint.h>
#include <string.h>

#define API __attribute__((visibility("default")))

#ifndef __AVX512BF16__

API int tpc_has_products16(void) { return 0; }

#else

#include <immintrin.h>

API int tpc_has_products16(void) { return 1; }

#define LANES 32
#define COLUMNS 8
#define PAIRS 256 /* of rows that are packed at a time */
#define LINE 64
typedef uint32_t pair; /* two numbers of 16 bits, the first one low */
typedef __m512 sums[COLUMNS][2];
typedef struct {
    const char *at;
    int64_t lines;
} later; /* memory that is fetched meanwhile, so that it never waits for arithmetic */

/* (first, second) of 16 lanes */
static inline __m512i paired(__m512 first, __m512 second)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

static inline __mmask16 first_lanes(int64_t n) { return n >= 16 ? 0xffff : n > 0 ? (__mmask16)((1u << n) - 1) : 0; }

/* x[32 lanes] of two rows with n numbers; second may be NULL */
static inline void pack_rows(const float *first, const float *second, int64_t n, pair *x)
{
    for (int v = 0; v < 2; v++) {
        const __mmask16 mask = first_lanes(n - 16 * v);
        const __m512 a = _mm512_maskz_loadu_ps(mask, first + 16 * v);
        const __m512 b = second ? _mm512_maskz_loadu_ps(mask, second + 16 * v) : _mm512_setzero_ps();
        _mm512_store_si512(x + 16 * v, paired(a, b));
    }
}

/* The n × n square on the diagonal of a packed matrix m that begins at `start`, to rows of `stride`. */
static inline void diagonal_square(const float *m, int64_t start, int64_t n, int64_t stride, float *square)
{
    for (int64_t j = 0; j < n; j++) {
        const float *t = m + (start + j) * (start + j + 1) / 2 + start;
        for (int64_t i = 0; i < j; i++)
            square[j * stride + i] = square[i * stride + j] = t[i];
        square[j * stride + j] = 1.41421356237309505f * t[j];
    }
}

/* total[c][lanes] = Σ over pairs of x[pair][lanes] y[pair][c], for one or two vectors of lanes */
static inline __attribute__((always_inline)) void tile(const pair *x, const pair *y, int64_t pairs, int wide,
                                                       later next, sums total)
{
    _Pragma("GCC unroll 8") for (int c = 0; c < COLUMNS; c++) for (int v = 0; v < wide; v++)
        total[c][v] = _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; p++) {
        __m512bh a[2];
        if (p < next.lines)
            _mm_prefetch(next.at + p * LINE, _MM_HINT_T1);
        for (int v = 0; v < wide; v++)
            a[v] = (__m512bh)_mm512_load_si512(x + p * LANES + 16 * v);
        _Pragma("GCC unroll 8") for (int c = 0; c < COLUMNS; c++) {
            const __m512bh b = (__m512bh)_mm512_set1_epi32((int)y[p * COLUMNS + c]);
            for (int v = 0; v < wide; v++)
                total[c][v] = _mm512_dpbf16_ps(total[c][v], a[v], b);
        }
    }
}

/* --- S[s][o][·] = ⟨M[o], g[s] ⊗ ·⟩ for symmetric matrices, packed as powers.h has them --------------------------- */

/* x[pair of j][i] = √2 · (symmetric matrix)[j][i], i = start … start + 31, from the packed rows m */
static void pack_symmetric(const float *m, int64_t start, int64_t rank, pair *x)
{
    const int64_t n = rank - start < LANES ? rank - start : LANES;
    if (n < LANES)
        memset(x, 0, (size_t)((rank + 1) / 2) * LANES * sizeof(pair));
    for (int64_t i = 0; i < n; i += 4) { /* j < start: from rows i, four pairs of four rows at a time */
        const int64_t rows = n - i < 4 ? n - i : 4;
        const float *t[4];
        for (int64_t k = 0; k < 4; k++) {
            const int64_t row = start + i + (k < rows ? k : rows - 1);
            t[k] = m + row * (row + 1) / 2;
        }
        for (int64_t j = 0; j < start; j += 8) {
            __m128 d[4];
            for (int k = 0; k < 4; k++)
                d[k] = _mm_castsi128_ps((__m128i)_mm256_cvtneps_pbh(_mm256_loadu_ps(t[k] + j)));
            _MM_TRANSPOSE4_PS(d[0], d[1], d[2], d[3]);
            for (int k = 0; k < 4; k++)
                _mm_store_ps((float *)(x + (j / 2 + k) * LANES + i), d[k]);
        }
    }
    float square[LANES][LANES] __attribute__((aligned(64))); /* j = start … start + 31: both halves */
    memset(square, 0, sizeof square);
    diagonal_square(m, start, n, LANES, square[0]);
    for (int64_t j = 0; j < n; j += 2)
        pack_rows(square[j], square[j + 1], LANES, x + (start + j) / 2 * LANES);
    for (int64_t j = start + LANES; j < rank; j += 2) { /* rows j */
        const float *t = m + j * (j + 1) / 2 + start;
        pack_rows(t, j + 1 < rank ? t + j + 1 : NULL, LANES, x + j / 2 * LANES);
    }
}

/* Outer indices first … last - 1 of m (outer, rank(rank+1)/2); g (groups of 8 samples, pairs, 8), x a scratch of
   (pairs, 32), out (samples, outer, rank). */
API void tpc_half16(const float *m, const pair *g, pair *x, float *out, int64_t first, int64_t last, int64_t outer,
                    int64_t samples, int64_t rank)
{
    const int64_t size = rank * (rank + 1) / 2, pairs = (rank + 1) / 2;
    const int64_t calls = ((rank + LANES - 1) / LANES) * ((samples + COLUMNS - 1) / COLUMNS);
    const __m512 scale = _mm512_set1_ps(0.70710678118654752f);
    for (int64_t o = first; o < last; o++) {
        later next = {(const char *)(m + (o + 1) * size), o + 1 < last ? (size * 4 / LINE + calls - 1) / calls : 0};
        for (int64_t start = 0; start < rank; start += LANES) {
            const int64_t n = rank - start;
            pack_symmetric(m + o * size, start, rank, x);
            for (int64_t base = 0; base < samples; base += COLUMNS) {
                sums total;
                if (n > 16)
                    tile(x, g + base * pairs, pairs, 2, next, total);
                else
                    tile(x, g + base * pairs, pairs, 1, next, total);
                next.at += next.lines * LINE;
                const int64_t count = samples - base < COLUMNS ? samples - base : COLUMNS;
                for (int64_t c = 0; c < count; c++)
                    for (int v = 0; v < 2 && 16 * v < n; v++)
                        _mm512_mask_storeu_ps(out + ((base + c) * outer + o) * rank + start + 16 * v,
                                              first_lanes(n - 16 * v), total[c][v] * scale);
            }
        }
    }
}

/* --- the same for a few samples, from matrices that were packed before ------------------------------------------- */

/* Sixteen rows i and a pair of columns to a register: t[k] = (M[i+k][j], M[i+k][j+1]), j < i, then the square on the
   diagonal. Every number is read once: it serves S[i] with g[j] and, turned within its 2 × 2 square, S[j] with g[i].
   Lanes are samples. */
#define ROWS 16
#define HALF (ROWS / 2)
#define EACH_PAIR _Pragma("GCC unroll 8") for (int k = 0; k < HALF; k++)
#define AHEAD 2048

/* pairs of one packed matrix: Σ over its blocks of rows */
static inline int64_t packed_pairs(int64_t blocks) { return blocks * (blocks + 1) / 2 * HALF * ROWS; }

/* to[pair of columns][row] = the first `columns` (a multiple of 8) numbers of four rows; the rows beyond n are zero */
static inline void pack_four(const float *const rows[4], int64_t n, int64_t columns, pair *to)
{
    for (int64_t j = 0; j < columns; j += 8) {
        __m128 d[4];
        for (int k = 0; k < 4; k++) {
            const __m256 x = k < n ? _mm256_loadu_ps(rows[k] + j) : _mm256_setzero_ps();
            d[k] = _mm_castsi128_ps((__m128i)_mm256_cvtneps_pbh(x));
        }
        _MM_TRANSPOSE4_PS(d[0], d[1], d[2], d[3]);
        for (int k = 0; k < 4; k++)
            _mm_store_ps((float *)(to + (j / 2 + k) * ROWS), d[k]);
    }
}

/* Outer indices first … last - 1 of m (outer, rank(rank+1)/2) to packed (outer, packed_pairs(blocks)). */
API void tpc_pack16(const float *m, pair *packed, int64_t first, int64_t last, int64_t rank)
{
    const int64_t size = rank * (rank + 1) / 2, blocks = (rank + ROWS - 1) / ROWS;
    for (int64_t o = first; o < last; o++) {
        const float *matrix = m + o * size;
        pair *to = packed + o * packed_pairs(blocks);
        for (int64_t i = 0; i < rank; i += ROWS) {
            const int64_t n = rank - i < ROWS ? rank - i : ROWS;
            const float *rows[ROWS];
            for (int64_t k = 0; k < ROWS; k++)
                rows[k] = matrix + (i + k) * (i + k + 1) / 2;
            for (int64_t k = 0; k < ROWS; k += 4)
                pack_four(rows + k, n - k, i, to + k);
            to += i / 2 * ROWS;
            float square[ROWS][ROWS] __attribute__((aligned(64)));
            memset(square, 0, sizeof square);
            diagonal_square(matrix, i, n, ROWS, square[0]);
            for (int64_t k = 0; k < ROWS; k++)
                rows[k] = square[k];
            for (int64_t k = 0; k < ROWS; k += 4)
                pack_four(rows + k, 4, ROWS, to + k);
            to += HALF * ROWS;
        }
    }
}

/* Two rows of eight samples each, in turn: one load gives the numbers of both rows to all samples. */
static inline __m512bh spread(const pair *two)
{
    long long both;
    memcpy(&both, two, sizeof both);
    return (__m512bh)_mm512_set1_epi64(both);
}

/* s[two rows i][sample][row] = Σ_j √2 (symmetric matrix)[i][j] g[j][sample]; g (pairs, 8 samples, twice the same).
   Numbers come to all samples from memory for S[i] and from a register for S[j]: a core can do both at a time. */
static void few(const pair *t, const __m512bh *g, __m512 *s, int64_t blocks)
{
    const __m512i turn = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    __m512i place[HALF];
    EACH_PAIR place[k] = _mm512_set1_epi64(k);
    for (int64_t block = 0; block < blocks; block++) {
        __m512bh own[HALF];
        __m512 total[HALF];
        EACH_PAIR {
            own[k] = g[block * HALF + k];
            total[k] = _mm512_setzero_ps();
        }
        for (int64_t p = 0; p < block * HALF; p++, t += ROWS) {
            _mm_prefetch((const char *)t + AHEAD, _MM_HINT_T0);
            const __m512i turned = _mm512_shuffle_epi8(_mm512_load_si512(t), turn);
            __m512 columns = s[p];
            EACH_PAIR {
                total[k] = _mm512_dpbf16_ps(total[k], spread(t + 2 * k), g[p]);
                columns = _mm512_dpbf16_ps(columns, (__m512bh)_mm512_permutexvar_epi64(place[k], turned), own[k]);
            }
            s[p] = columns;
        }
        for (int64_t p = 0; p < HALF; p++, t += ROWS)
            EACH_PAIR total[k] = _mm512_dpbf16_ps(total[k], spread(t + 2 * k), own[p]);
        EACH_PAIR s[block * HALF + k] = total[k];
    }
}

/* Eight rows of eight pairs of floats to their columns. */
static inline void transpose_pairs(__m512 x[8])
{
    __m512d a[8], b[8];
    for (int k = 0; k < 8; k += 2) {
        a[k] = _mm512_unpacklo_pd((__m512d)x[k], (__m512d)x[k + 1]);
        a[k + 1] = _mm512_unpackhi_pd((__m512d)x[k], (__m512d)x[k + 1]);
    }
    for (int k = 0; k < 8; k += 4)
        for (int odd = 0; odd < 2; odd++) { /* quarters 0, 2 and 1, 3 of two rows each */
            b[k + odd] = _mm512_shuffle_f64x2(a[k + odd], a[k + 2 + odd], 0x88);
            b[k + 2 + odd] = _mm512_shuffle_f64x2(a[k + odd], a[k + 2 + odd], 0xdd);
        }
    for (int k = 0; k < 4; k++) {
        const int column = k % 2 + k / 2 * 2;
        x[column] = (__m512)_mm512_shuffle_f64x2(b[k], b[k + 4], 0x88);
        x[column + 4] = (__m512)_mm512_shuffle_f64x2(b[k], b[k + 4], 0xdd);
    }
}

/* As tpc_half16, from what tpc_pack16 made; g (groups of 8 samples, pairs in blocks of rows, 8 samples, 2 times the
   same), exact: the same not rounded (groups, pairs, 8, 2), s a scratch of (rows in blocks, 8), whole (samples, outer):
   ⟨M[o], g[s] ⊗ g[s]⟩. */
API void tpc_few16(const pair *packed, const pair *g, const float *exact, float *s, float *out, float *whole,
                   int64_t first, int64_t last, int64_t outer, int64_t samples, int64_t rank)
{
    const int64_t blocks = (rank + ROWS - 1) / ROWS;
    const __m512 scale = _mm512_set1_ps(0.70710678118654752f);
    for (int64_t o = first; o < last; o++)
        for (int64_t base = 0; base < samples; base += COLUMNS) {
            const __m512 *const halves = (const __m512 *)s, *const latents = (const __m512 *)(exact + base * blocks * ROWS);
            few(packed + o * packed_pairs(blocks), (const __m512bh *)(g + base * blocks * ROWS), (__m512 *)s, blocks);
            const int64_t count = samples - base < COLUMNS ? samples - base : COLUMNS;
            __m512 total[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
            for (int64_t p = 0; p < blocks * HALF; p++)
                total[p % 2] += halves[p] * latents[p];
            float twice[2 * COLUMNS] __attribute__((aligned(64)));
            _mm512_store_ps(twice, (total[0] + total[1]) * scale);
            for (int64_t c = 0; c < count; c++)
                whole[(base + c) * outer + o] = twice[2 * c] + twice[2 * c + 1];
            for (int64_t p = 0; p < blocks * HALF; p += 8) {
                __m512 sample[COLUMNS];
                for (int k = 0; k < 8; k++)
                    sample[k] = halves[p + k] * scale;
                transpose_pairs(sample);
                for (int64_t c = 0; c < count; c++)
                    _mm512_mask_storeu_ps(out + ((base + c) * outer + o) * rank + 2 * p, first_lanes(rank - 2 * p),
                                          sample[c]);
            }
        }
}

/* --- target += aᵀ b ----------------------------------------------------------------------------------------------- */

/* target (outer rows of `stride` numbers) += aᵀ b for a (groups of 8, pairs, 8) and b (rows, n); x a scratch of
   (n / 32 rounded up, 256, 32). */
API void tpc_add16(float *target, const pair *a, const float *b, pair *x, int64_t rows, int64_t n, int64_t stride,
                   int64_t outer)
{
    const int64_t pairs = (rows + 1) / 2;
    for (int64_t p = 0; p < pairs; p += PAIRS) {
        const int64_t here = pairs - p < PAIRS ? pairs - p : PAIRS;
        for (int64_t k = 0; k < here; k++) {
            const float *row = b + 2 * (p + k) * n, *next = 2 * (p + k) + 1 < rows ? row + n : NULL;
            for (int64_t start = 0; start < n; start += LANES)
                pack_rows(row + start, next ? next + start : NULL, n - start, x + (start / LANES * PAIRS + k) * LANES);
        }
        for (int64_t o = 0; o < outer; o += COLUMNS) {
            const int64_t count = outer - o < COLUMNS ? outer - o : COLUMNS;
            for (int64_t start = 0; start < n; start += LANES) {
                float *to = target + o * stride + start;
                for (int64_t c = 0; c < count; c++) {
                    _mm_prefetch((const char *)(to + c * stride), _MM_HINT_T0);
                    _mm_prefetch((const char *)(to + c * stride + 16), _MM_HINT_T0);
                }
                sums total;
                tile(x + start * PAIRS, a + o * pairs + p * COLUMNS, here, 2, (later){NULL, 0}, total);
                for (int64_t c = 0; c < count; c++)
                    for (int v = 0; v < 2; v++) {
                        float *at = to + c * stride + 16 * v;
                        const __mmask16 mask = first_lanes(n - start - 16 * v);
                        _mm512_mask_storeu_ps(at, mask, _mm512_maskz_loadu_ps(mask, at) + total[c][v]);
                    }
            }
        }
    }
}

#endif
