/* Matrices and few samples. A matrix is read once, in the order in which its numbers lie in memory, for all samples:
   the sums of eight of them and of 32 columns are in registers for a block of rows. */

#include <stdint.h>

#define API __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))
#define WIDE 16 /* floats */
#define GROUP 8 /* samples */
#define ROWS 16
#define UNROLL _Pragma("GCC unroll 16")

typedef float wide __attribute__((vector_size(4 * WIDE)));
typedef float loose __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

/* One call: rows or samples first … last - 1. */
typedef struct {
    int64_t first, last, rows, columns, samples;
    float *matrix;
    const float *x, *y;
    float *out;
    double keep;
} tpc_dense;

INLINE wide at(const float *x) { return *(const loose *)x; }
INLINE void put(float *x, wide value) { *(loose *)x = value; }

/* out[s][c] += Σ_r x[s][r] w[r][c] for some rows, samples and columns, all of them constants but the strides; so many
   lines from `next` on are fetched meanwhile, in the order of memory */
INLINE void add_block(const float *w, int64_t columns, const float *x, int64_t stride, float *out, int rows, int samples,
                      int vectors, const float *next)
{
    wide total[GROUP][2];
    UNROLL for (int s = 0; s < samples; s++) for (int v = 0; v < vectors; v++)
        total[s][v] = at(out + s * columns + v * WIDE);
    for (int r = 0; r < rows; r++) {
        wide number[2];
        for (int v = 0; v < vectors; v++) {
            __builtin_prefetch(next + (r * vectors + v) * WIDE);
            number[v] = at(w + r * columns + v * WIDE);
        }
        UNROLL for (int s = 0; s < samples; s++) for (int v = 0; v < vectors; v++)
            total[s][v] += x[s * stride + r] * number[v];
    }
    UNROLL for (int s = 0; s < samples; s++) for (int v = 0; v < vectors; v++)
        put(out + s * columns + v * WIDE, total[s][v]);
}

INLINE void add_rows(const float *w, int64_t columns, const float *x, int64_t stride, float *out, int rows, int samples)
{
    const float *const next = w + rows * columns;
    int64_t c = 0;
    for (; c + 2 * WIDE <= columns; c += 2 * WIDE)
        add_block(w + c, columns, x, stride, out + c, rows, samples, 2, next + c * rows);
    for (; c + WIDE <= columns; c += WIDE)
        add_block(w + c, columns, x, stride, out + c, rows, samples, 1, next + c * rows);
    for (; c < columns; c++)
        for (int s = 0; s < samples; s++)
            for (int r = 0; r < rows; r++)
                out[s * columns + c] += x[s * stride + r] * w[r * columns + c];
}

/* out (samples, columns) += x w for x (samples, rows) and the matrix w (rows, columns): the share of some rows */
API int tpc_products(const void *call)
{
    const tpc_dense *a = call;
    const int64_t columns = a->columns, stride = a->rows;
    for (int64_t r = a->first; r < a->last; r += ROWS) {
        const int rows = a->last - r < ROWS ? (int)(a->last - r) : ROWS;
        const float *const w = a->matrix + r * columns;
        for (int64_t s = 0, group; s < a->samples; s += group) {
            const int64_t left = a->samples - s;
            const float *const x = a->x + s * stride + r;
            float *const out = a->out + s * columns;
            group = left >= GROUP ? GROUP : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            if (group == GROUP)
                add_rows(w, columns, x, stride, out, rows, GROUP);
            else if (group == 4)
                add_rows(w, columns, x, stride, out, rows, 4);
            else if (group == 2)
                add_rows(w, columns, x, stride, out, rows, 2);
            else
                add_rows(w, columns, x, stride, out, rows, 1);
        }
    }
    return 0;
}

/* A matrix for every sample, (samples, rows, columns): out[s] += x[s] matrix[s] for x (samples, rows) */
API int tpc_vecmats(const void *call)
{
    const tpc_dense *a = call;
    const float *w = a->matrix + a->first * a->rows * a->columns;
    for (int64_t s = a->first; s < a->last; s++) {
        float *restrict out = a->out + s * a->columns;
        for (int64_t r = 0; r < a->rows; r++, w += a->columns) {
            const float x = a->x[s * a->rows + r];
            for (int64_t c = 0; c < a->columns; c++)
                out[c] += x * w[c];
        }
    }
    return 0;
}

/* out[s] = matrix[s] x[s] for x (samples, columns), out (samples, rows) */
API int tpc_matvecs(const void *call)
{
    const tpc_dense *a = call;
    const float *w = a->matrix + a->first * a->rows * a->columns;
    for (int64_t s = a->first; s < a->last; s++) {
        const float *x = a->x + s * a->columns;
        for (int64_t r = 0; r < a->rows; r++, w += a->columns) {
            wide even = {0}, odd = {0};
            float sum = 0;
            int64_t c = 0;
            for (; c + 2 * WIDE <= a->columns; c += 2 * WIDE) {
                even += at(w + c) * at(x + c);
                odd += at(w + c + WIDE) * at(x + c + WIDE);
            }
            for (; c < a->columns; c++)
                sum += w[c] * x[c];
            even += odd;
            for (int k = 0; k < WIDE; k++)
                sum += even[k];
            a->out[s * a->rows + r] = sum;
        }
    }
    return 0;
}

/* keep·w - Σ_s x[s] y[s][c] in some columns of a row */
INLINE void update_columns(float *w, const float *x, int64_t rows, const float *y, int64_t columns, int64_t samples,
                           float keep, int vectors)
{
    wide sum[4];
    for (int v = 0; v < vectors; v++)
        sum[v] = keep * at(w + v * WIDE);
    for (int64_t s = 0; s < samples; s++)
        for (int v = 0; v < vectors; v++)
            sum[v] -= x[s * rows] * at(y + s * columns + v * WIDE);
    for (int v = 0; v < vectors; v++)
        put(w + v * WIDE, sum[v]);
}

/* matrix ← keep·matrix - xᵀ y in the rows first … last - 1, for x (samples, rows), y (samples, columns) */
API int tpc_update(const void *call)
{
    const tpc_dense *a = call;
    const float keep = (float)a->keep;
    const int64_t columns = a->columns;
    for (int64_t r = a->first; r < a->last; r++) {
        float *const w = a->matrix + r * columns;
        const float *const x = a->x + r;
        int64_t c = 0;
        for (; c + 4 * WIDE <= columns; c += 4 * WIDE)
            update_columns(w + c, x, a->rows, a->y + c, columns, a->samples, keep, 4);
        for (; c + WIDE <= columns; c += WIDE)
            update_columns(w + c, x, a->rows, a->y + c, columns, a->samples, keep, 1);
        for (; c < columns; c++) {
            float sum = keep * w[c];
            for (int64_t s = 0; s < a->samples; s++)
                sum -= x[s * a->rows] * a->y[s * columns + c];
            w[c] = sum;
        }
    }
    return 0;
}
