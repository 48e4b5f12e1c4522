/* Fused loops over stored atoms: products with the batch's latents, and sums over atoms, a block of rows at a time.
 *
 * Arrays of a block are [row][lane]: a lane is a sample, padded to a multiple of 8. Stored rows are float, bfloat16 or
 * float16; all arithmetic is in float.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

#define TPC_API __attribute__((visibility("default")))
#define TPC_INLINE static inline __attribute__((always_inline, unused))
#define TPC_CALL static __attribute__((noinline, unused))
#define TPC_LANES 8 /* samples that share one pass over a row's numbers */

/* W numbers to a vector; of a row product a tile of TALL rows, of a sum a tile of WIDE vectors stays in registers */
#if defined(__AVX512F__)
#define W 16
#define TALL 3
#define WIDE 3
#elif defined(__AVX__)
#define W 8
#define TALL 1
#define WIDE 1
#else
#define W 4
#define TALL 1
#define WIDE 1
#endif

typedef float tpc_vec __attribute__((vector_size(4 * W)));
typedef float tpc_loose __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint32_t tpc_bits __attribute__((vector_size(4 * W)));
typedef uint16_t tpc_half __attribute__((vector_size(2 * W), aligned(2), may_alias));

enum { TPC_FLOAT, TPC_BFLOAT16, TPC_FLOAT16, TPC_DOUBLE };

/* One call: the rows begin … end of a store, given as segments of segment_rows rows. */
typedef struct {
    int64_t begin, end, segment_rows, block_rows, batch;
    const char *const *const *columns; /* for every column its segments */
    const int64_t *kinds, *widths;
    const float *const *captured; /* [sample][rank], [sample] or a number */
    const int64_t *captured_widths;
    float *const *kept; /* [atom][lane] or [atom] */
    float *const *sums; /* [sample][width] or [sample] */
} tpc_call;

/* --- memory of one call ------------------------------------------------------------------------------------------ */

typedef struct {
    void **taken; /* room for every array that the call takes */
    int size, count, failed;
} tpc_arena;

TPC_CALL float *tpc_take(tpc_arena *arena, int64_t numbers)
{
    size_t bytes = ((size_t)numbers * sizeof(float) + 63) / 64 * 64;
    void *p = arena->count < arena->size ? aligned_alloc(64, bytes ? bytes : 64) : NULL;
    if (!p) {
        arena->failed = 1;
        return NULL;
    }
    arena->taken[arena->count++] = memset(p, 0, bytes);
    return p;
}

TPC_CALL int tpc_close(tpc_arena *arena)
{
    while (arena->count)
        free(arena->taken[--arena->count]);
    return arena->failed;
}

/* --- stored rows ------------------------------------------------------------------------------------------------- */

TPC_INLINE float tpc_from_half(uint16_t h)
{
    uint32_t magnitude = h & 0x7fffu, bits;
    float x;
    if (magnitude < 0x0400u) { /* subnormal: a multiple of 2^-24 */
        x = (float)magnitude * 5.9604645e-08f;
        memcpy(&bits, &x, 4);
    } else {
        bits = (magnitude << 13) + (magnitude >= 0x7c00u ? 0x70000000u : 0x38000000u);
    }
    bits |= (uint32_t)(h & 0x8000u) << 16;
    memcpy(&x, &bits, 4);
    return x;
}

/* number i of stored numbers */
TPC_INLINE float tpc_number(const void *p, int64_t i, int kind)
{
    uint32_t bits;
    float x;
    switch (kind) {
    case TPC_FLOAT:
        return ((const float *)p)[i];
    case TPC_BFLOAT16:
        bits = (uint32_t)((const uint16_t *)p)[i] << 16;
        memcpy(&x, &bits, 4);
        return x;
    case TPC_FLOAT16:
        return tpc_from_half(((const uint16_t *)p)[i]);
    default:
        return (float)((const double *)p)[i];
    }
}

/* numbers i … i + W - 1 */
TPC_INLINE tpc_vec tpc_load(const void *p, int64_t i, int kind)
{
    if (kind == TPC_FLOAT)
        return *(const tpc_loose *)((const float *)p + i);
#if defined(__AVX512F__)
    if (kind == TPC_BFLOAT16)
        return (tpc_vec)_mm512_slli_epi32(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)((const uint16_t *)p + i))), 16);
#else
    if (kind == TPC_BFLOAT16)
        return (tpc_vec)(__builtin_convertvector(*(const tpc_half *)((const uint16_t *)p + i), tpc_bits) << 16);
#endif
#if defined(__AVX512F__)
    return (tpc_vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)((const uint16_t *)p + i)));
#elif defined(__F16C__) && W == 8
    return (tpc_vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)((const uint16_t *)p + i)));
#else
    tpc_vec x;
    for (int k = 0; k < W; k++)
        x[k] = tpc_from_half(((const uint16_t *)p)[i + k]);
    return x;
#endif
}

TPC_INLINE int64_t tpc_size(int kind) { return kind == TPC_FLOAT ? 4 : kind == TPC_DOUBLE ? 8 : 2; }

/* A row as vectors: the last one overlaps the one before unless the width is a multiple of W. */
typedef struct {
    int64_t count, last, fresh; /* vectors; where the last begins; how many of its numbers no other vector has */
} tpc_cut;

TPC_INLINE tpc_cut tpc_cut_of(int64_t width)
{
    tpc_cut cut = {(width + W - 1) / W, width < W ? 0 : width - W, width % W ? width % W : W};
    return cut;
}

TPC_INLINE int64_t tpc_start(tpc_cut cut, int64_t c) { return c + 1 < cut.count ? c * W : cut.last; }

typedef struct {
    int64_t first, rows, segment, offset;
} tpc_block;

TPC_CALL tpc_block tpc_block_at(const tpc_call *call, int64_t first)
{
    tpc_block b = {first, 0, first / call->segment_rows, first % call->segment_rows};
    int64_t left = call->end - first, room = call->segment_rows - b.offset;
    b.rows = left < room ? left : room;
    b.rows = b.rows < call->block_rows ? b.rows : call->block_rows;
    return b;
}

/* The rows of one column in a block; those narrower than a vector are copied and padded with zeros. */
typedef struct {
    const char *at, *ahead; /* ahead: rows to fetch meanwhile, or NULL */
    int64_t stride, rows, ahead_stride, ahead_step;
    int kind;
    tpc_cut cut;
} tpc_rows;

TPC_INLINE const char *tpc_row(const tpc_call *call, int column, tpc_block b)
{
    return call->columns[column][b.segment] + b.offset * call->widths[column] * tpc_size((int)call->kinds[column]);
}

TPC_CALL tpc_rows tpc_rows_of(const tpc_call *call, int column, tpc_block b, float *narrow)
{
    int64_t width = call->widths[column];
    int kind = (int)call->kinds[column];
    const char *at = tpc_row(call, column, b);
    tpc_rows rows = {at, NULL, width * tpc_size(kind), b.rows, 0, 0, kind, tpc_cut_of(width)};
    if (width >= W)
        return rows;
    tpc_bits keep;
    for (int k = 0; k < W; k++)
        keep[k] = k < width ? ~0u : 0u;
    int64_t room = (call->segment_rows - b.offset) * width; /* numbers of the segment from here on */
    for (int64_t i = 0; i < b.rows; i++)
        if (i * width + W <= room && kind == TPC_FLOAT)
            ((tpc_vec *)narrow)[i] = (tpc_vec)((tpc_bits)tpc_load(at, i * width, TPC_FLOAT) & keep);
        else if (i * width + W <= room && kind == TPC_BFLOAT16)
            ((tpc_vec *)narrow)[i] = (tpc_vec)((tpc_bits)tpc_load(at, i * width, TPC_BFLOAT16) & keep);
        else if (i * width + W <= room && kind == TPC_FLOAT16)
            ((tpc_vec *)narrow)[i] = (tpc_vec)((tpc_bits)tpc_load(at, i * width, TPC_FLOAT16) & keep);
        else
            for (int64_t k = 0; k < width; k++)
                narrow[i * W + k] = tpc_number(at, i * width + k, kind);
    rows.at = (const char *)narrow;
    rows.stride = 4 * W;
    rows.kind = TPC_FLOAT;
    return rows;
}

/* The same rows, and those to fetch while the registers are busy with these: memory never waits for arithmetic. */
TPC_INLINE tpc_rows tpc_fetch(tpc_rows rows, const tpc_call *call, int column, tpc_block b)
{
    if (b.rows > 0) {
        rows.ahead = tpc_row(call, column, b);
        rows.ahead_stride = call->widths[column] * tpc_size((int)call->kinds[column]);
        rows.ahead_step = rows.ahead_stride / rows.cut.count;
    }
    return rows;
}

/* --- products with latents: out[row][lane] = ⟨row, latent of the lane⟩ ------------------------------------------ */

/* latents [sample][width] → [group of lanes][vector][lane], zeros in padding lanes and where the last vector overlaps */
TPC_CALL tpc_vec *tpc_pack(tpc_arena *arena, const float *x, int64_t batch, int64_t lanes, int64_t width)
{
    tpc_cut cut = tpc_cut_of(width);
    float *packed = tpc_take(arena, lanes * cut.count * W);
    for (int64_t s = 0; packed && s < batch; s++)
        for (int64_t c = 0; c < cut.count; c++) {
            float *to = packed + (((s / TPC_LANES) * cut.count + c) * TPC_LANES + s % TPC_LANES) * W;
            int64_t start = tpc_start(cut, c), skip = c + 1 == cut.count && width >= W ? W - cut.fresh : 0;
            for (int64_t k = skip; k < W && start + k < width; k++)
                to[k] = x[s * width + start + k];
        }
    return (tpc_vec *)packed;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TPC_SHUFFLE __builtin_shufflevector
#endif
#endif

/* out[s] = Σ of the numbers of x[s] */
TPC_INLINE void tpc_totals(const tpc_vec *x, float *out)
{
#if defined(TPC_SHUFFLE) && W == 16
#define TPC_HALVES(a, b)                                                                                  \
    (TPC_SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +                            \
     TPC_SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define TPC_QUARTERS(a, b)                                                                                \
    (TPC_SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +                          \
     TPC_SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
    tpc_vec a = TPC_QUARTERS(TPC_HALVES(x[0], x[1]), TPC_HALVES(x[2], x[3]));
    tpc_vec b = TPC_QUARTERS(TPC_HALVES(x[4], x[5]), TPC_HALVES(x[6], x[7]));
    tpc_vec c = TPC_SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                TPC_SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    typedef float tpc_eight __attribute__((vector_size(32), aligned(4), may_alias));
    *(tpc_eight *)out = TPC_SHUFFLE(c, c, 0, 4, 8, 12, 2, 6, 10, 14) + TPC_SHUFFLE(c, c, 1, 5, 9, 13, 3, 7, 11, 15);
#elif defined(TPC_SHUFFLE) && W == 8
#define TPC_HALVES(a, b) \
    (TPC_SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + TPC_SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#define TPC_PAIRS(a, b) \
    (TPC_SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + TPC_SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15))
    tpc_vec a = TPC_PAIRS(TPC_HALVES(x[0], x[1]), TPC_HALVES(x[2], x[3])); /* 0 0 2 2 1 1 3 3 */
    tpc_vec b = TPC_PAIRS(TPC_HALVES(x[4], x[5]), TPC_HALVES(x[6], x[7]));
    *(tpc_loose *)out =
        TPC_SHUFFLE(a, b, 0, 4, 2, 6, 8, 12, 10, 14) + TPC_SHUFFLE(a, b, 1, 5, 3, 7, 9, 13, 11, 15);
#else
    for (int s = 0; s < TPC_LANES; s++) {
        float total = 0.0f;
        for (int k = 0; k < W; k++)
            total += x[s][k];
        out[s] = total;
    }
#endif
}

TPC_INLINE void tpc_product_tile(const tpc_rows *x, int64_t row, int tall, int kind, const tpc_vec *latents,
                                 int64_t lanes, float *out)
{
    tpc_vec total[TALL][TPC_LANES];
    for (int t = 0; t < tall; t++)
        for (int s = 0; s < TPC_LANES; s++)
            total[t][s] = (tpc_vec){0};
    const int64_t step = x->ahead_step;
    for (int64_t c = 0; c < x->cut.count; c++) {
        int64_t start = tpc_start(x->cut, c);
        tpc_vec v[TALL];
        for (int t = 0; t < tall; t++) {
            v[t] = tpc_load(x->at + (row + t) * x->stride, start, kind);
            if (x->ahead)
                __builtin_prefetch(x->ahead + (row + t) * x->ahead_stride + c * step, 0, 2);
        }
        for (int s = 0; s < TPC_LANES; s++)
            for (int t = 0; t < tall; t++)
                total[t][s] += v[t] * latents[c * TPC_LANES + s];
    }
    for (int t = 0; t < tall; t++)
        tpc_totals(total[t], out + (row + t) * lanes);
}

TPC_INLINE void tpc_products_of(tpc_rows *x, int kind, const tpc_vec *packed, int64_t lanes, float *out)
{
    for (int64_t group = 0; group < lanes / TPC_LANES; group++) {
        const tpc_vec *latents = packed + group * x->cut.count * TPC_LANES;
        int64_t row = 0;
        for (; row + TALL <= x->rows; row += TALL)
            tpc_product_tile(x, row, TALL, kind, latents, lanes, out + group * TPC_LANES);
        for (; row < x->rows; row++)
            tpc_product_tile(x, row, 1, kind, latents, lanes, out + group * TPC_LANES);
        x->ahead = NULL; /* once is enough */
    }
}

TPC_CALL void tpc_products(tpc_rows x, const tpc_vec *packed, int64_t lanes, float *out)
{
    switch (x.kind) {
    case TPC_FLOAT:
        tpc_products_of(&x, TPC_FLOAT, packed, lanes, out);
        break;
    case TPC_BFLOAT16:
        tpc_products_of(&x, TPC_BFLOAT16, packed, lanes, out);
        break;
    default:
        tpc_products_of(&x, TPC_FLOAT16, packed, lanes, out);
    }
}

/* out[row] = ⟨row of x, row of y⟩ */
TPC_CALL void tpc_row_products(tpc_rows x, tpc_rows y, float *out)
{
    for (int64_t row = 0; row < x.rows; row++) {
        const char *a = x.at + row * x.stride, *b = y.at + row * y.stride;
        float total[W] = {0};
        for (int64_t c = 0; c < x.cut.count; c++) {
            int64_t start = tpc_start(x.cut, c);
            tpc_vec u = x.kind == TPC_FLOAT      ? tpc_load(a, start, TPC_FLOAT)
                        : x.kind == TPC_BFLOAT16 ? tpc_load(a, start, TPC_BFLOAT16)
                                                 : tpc_load(a, start, TPC_FLOAT16);
            tpc_vec v = y.kind == TPC_FLOAT      ? tpc_load(b, start, TPC_FLOAT)
                        : y.kind == TPC_BFLOAT16 ? tpc_load(b, start, TPC_BFLOAT16)
                                                 : tpc_load(b, start, TPC_FLOAT16);
            tpc_vec product = u * v;
            int skip = c + 1 == x.cut.count && c > 0 ? W - (int)x.cut.fresh : 0;
            for (int k = 0; k < W; k++)
                total[k] += k >= skip ? product[k] : 0.0f;
        }
        out[row] = 0.0f;
        for (int k = 0; k < W; k++)
            out[row] += total[k];
    }
}

/* --- numbers along a block --------------------------------------------------------------------------------------- */

/* out[row][lane] = number of the row */
TPC_CALL void tpc_spread_rows(const void *numbers, int64_t offset, int kind, int64_t rows, int64_t lanes, float *out)
{
    for (int64_t row = 0; row < rows; row++) {
        float x = tpc_number(numbers, offset + row, kind);
        for (int64_t lane = 0; lane < lanes; lane++)
            out[row * lanes + lane] = x;
    }
}

/* out[row][lane] = number of the lane, one number for all where the width is 0 */
TPC_CALL float *tpc_spread_lanes(tpc_arena *arena, const float *x, int64_t width, int64_t batch, int64_t rows,
                                   int64_t lanes)
{
    float *out = tpc_take(arena, rows * lanes);
    for (int64_t i = 0; out && i < rows * lanes; i++)
        out[i] = i % lanes < batch ? x[width ? i % lanes : 0] : 0.0f;
    return out;
}

/* --- sums over atoms --------------------------------------------------------------------------------------------- */

TPC_INLINE void tpc_sum_tile(const tpc_rows *x, int64_t c, int wide, int kind, const float *weights, int64_t lanes,
                             float *sums)
{
    tpc_vec total[TPC_LANES][WIDE];
    for (int s = 0; s < TPC_LANES; s++)
        for (int v = 0; v < wide; v++)
            total[s][v] = (tpc_vec){0};
    int64_t start[WIDE];
    for (int v = 0; v < wide; v++)
        start[v] = tpc_start(x->cut, c + v);
    const int64_t step = x->ahead_step;
    for (int64_t row = 0; row < x->rows; row++) {
        tpc_vec numbers[WIDE];
        for (int v = 0; v < wide; v++) {
            numbers[v] = tpc_load(x->at + row * x->stride, start[v], kind);
            if (x->ahead)
                __builtin_prefetch(x->ahead + row * x->ahead_stride + (c + v) * step, 0, 2);
        }
        for (int s = 0; s < TPC_LANES; s++) {
            float weight = weights[row * lanes + s];
            for (int v = 0; v < wide; v++)
                total[s][v] += numbers[v] * weight;
        }
    }
    for (int s = 0; s < TPC_LANES; s++)
        for (int v = 0; v < wide; v++)
            ((tpc_vec *)sums)[s * x->cut.count + c + v] += total[s][v];
}

TPC_INLINE void tpc_sum_of(tpc_rows *x, int kind, const float *weights, int64_t lanes, float *sums)
{
    for (int64_t group = 0; group < lanes / TPC_LANES; group++) {
        float *into = sums + group * TPC_LANES * x->cut.count * W;
        int64_t c = 0;
        for (; c + WIDE <= x->cut.count; c += WIDE)
            tpc_sum_tile(x, c, WIDE, kind, weights + group * TPC_LANES, lanes, into);
        for (; c < x->cut.count; c++)
            tpc_sum_tile(x, c, 1, kind, weights + group * TPC_LANES, lanes, into);
        x->ahead = NULL;
    }
}

/* sums[lane] += Σ over rows of weight·row, as vectors */
TPC_CALL void tpc_sum(tpc_rows x, const float *weights, int64_t lanes, float *sums)
{
    switch (x.kind) {
    case TPC_FLOAT:
        tpc_sum_of(&x, TPC_FLOAT, weights, lanes, sums);
        break;
    case TPC_BFLOAT16:
        tpc_sum_of(&x, TPC_BFLOAT16, weights, lanes, sums);
        break;
    default:
        tpc_sum_of(&x, TPC_FLOAT16, weights, lanes, sums);
    }
}

/* sums[lane] += Σ over rows of weight */
TPC_CALL void tpc_sum_weights(const float *weights, int64_t rows, int64_t lanes, float *sums)
{
    for (int64_t group = 0; group < lanes; group += TPC_LANES) {
        float total[TPC_LANES] = {0};
        for (int64_t row = 0; row < rows; row++)
            for (int s = 0; s < TPC_LANES; s++)
                total[s] += weights[row * lanes + group + s];
        for (int s = 0; s < TPC_LANES; s++)
            sums[group + s] += total[s];
    }
}

TPC_CALL float *tpc_sum_open(tpc_arena *arena, int64_t width, int64_t lanes)
{
    return tpc_take(arena, width ? lanes * tpc_cut_of(width).count * W : lanes);
}

/* sums as vectors → [sample][width], or [sample] for width 0 */
TPC_CALL void tpc_sum_close(const float *sums, int64_t width, int64_t batch, float *out)
{
    tpc_cut cut = tpc_cut_of(width);
    for (int64_t s = 0; s < batch; s++)
        if (!width)
            out[s] = sums[s];
        else
            for (int64_t k = 0; k < width; k++) {
                int64_t c = k / W, lane = c + 1 == cut.count && width >= W ? k - cut.last : k % W;
                out[s * width + k] = sums[(s * cut.count + c) * W + lane];
            }
}

TPC_INLINE int64_t tpc_lanes_of(int64_t batch) { return (batch + TPC_LANES - 1) / TPC_LANES * TPC_LANES; }
