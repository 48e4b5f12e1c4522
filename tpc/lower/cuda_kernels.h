/* Kernels that every limit uses. Plain C but for the words of CUDA, without headers: NVRTC compiles it as it is.
 *
 * Stored rows are float, bfloat16 or float16; all arithmetic is in float. A number x is split for products of bfloat16
 * into two: its own bfloat16 and that of the rest, which together are x to 2^-17.
 */

#ifndef TPC_KERNEL
#define TPC_KERNEL extern "C" __global__
#endif

typedef long long tpc_int;

enum { TPC_FLOAT, TPC_BFLOAT16, TPC_FLOAT16 };

TPC_DEV tpc_int tpc_index(void) { return (tpc_int)blockIdx.x * blockDim.x + threadIdx.x; }

TPC_DEV unsigned tpc_bits(float x)
{
    union {
        float number;
        unsigned bits;
    } both = {x};
    return both.bits;
}

TPC_DEV float tpc_float(unsigned bits)
{
    union {
        unsigned bits;
        float number;
    } both = {bits};
    return both.number;
}

/* --- numbers of 16 bits ------------------------------------------------------------------------------------------ */

TPC_DEV float tpc_from_bfloat16(unsigned short x) { return tpc_float((unsigned)x << 16); }

/* the nearest, ties to even; NaN stays */
TPC_DEV unsigned short tpc_to_bfloat16(float x)
{
    const unsigned bits = tpc_bits(x);
    if (x != x)
        return (unsigned short)((bits >> 16) | 0x40u);
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

TPC_DEV float tpc_from_float16(unsigned short x)
{
    const unsigned magnitude = x & 0x7fffu, sign = (unsigned)(x & 0x8000u) << 16;
    if (magnitude < 0x0400u) /* subnormal: a multiple of 2^-24 */
        return tpc_float(tpc_bits((float)magnitude * 5.9604645e-08f) | sign);
    return tpc_float(((magnitude << 13) + (magnitude >= 0x7c00u ? 0x70000000u : 0x38000000u)) | sign);
}

/* the nearest, ties to even; finite numbers beyond the largest become the largest */
TPC_DEV unsigned short tpc_to_float16(float x)
{
    const unsigned bits = tpc_bits(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    unsigned rounded;
    if (magnitude >= 0x7f800000u) /* infinity or NaN */
        rounded = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    else if (magnitude >= 0x477ff000u)
        rounded = 0x7bffu;
    else if (magnitude < 0x38800000u) /* subnormal: adding 2^-1 rounds to multiples of 2^-24 */
        rounded = tpc_bits(tpc_float(magnitude) + 0.5f) - 0x3f000000u;
    else
        rounded = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    return (unsigned short)(sign | rounded);
}

TPC_DEV float tpc_number(const void *x, tpc_int i, tpc_int kind)
{
    if (kind == TPC_FLOAT)
        return ((const float *)x)[i];
    return kind == TPC_BFLOAT16 ? tpc_from_bfloat16(((const unsigned short *)x)[i])
                                : tpc_from_float16(((const unsigned short *)x)[i]);
}

TPC_KERNEL void tpc_narrow(tpc_int count, const float *x, tpc_int kind, unsigned short *out)
{
    const tpc_int i = tpc_index();
    if (i < count)
        out[i] = kind == TPC_BFLOAT16 ? tpc_to_bfloat16(x[i]) : tpc_to_float16(x[i]);
}

TPC_KERNEL void tpc_widen(tpc_int count, const unsigned short *x, tpc_int kind, float *out)
{
    const tpc_int i = tpc_index();
    if (i < count)
        out[i] = tpc_number(x, i, kind);
}

/* --- loops over atoms: what goes into and comes out of matrix products -------------------------------------------- */

/* a number where low is 0, else the two parts of one, `low` numbers apart */
TPC_DEV void tpc_put(void *out, tpc_int i, tpc_int low, float x)
{
    if (low == 0) {
        ((float *)out)[i] = x;
        return;
    }
    const unsigned short high = tpc_to_bfloat16(x);
    const float rest = x - tpc_from_bfloat16(high);
    ((unsigned short *)out)[i] = high;
    ((unsigned short *)out)[i + low] = tpc_to_bfloat16(rest == rest ? rest : 0.0f); /* infinity has no rest */
}

/* the sum of what the two parts gave */
TPC_DEV float tpc_get(const float *x, tpc_int i, tpc_int low) { return low ? x[i] + x[i + low] : x[i]; }

TPC_KERNEL void tpc_split(tpc_int count, const float *x, unsigned short *out)
{
    const tpc_int i = tpc_index();
    if (i < count)
        tpc_put(out, i, count, x[i]);
}

TPC_KERNEL void tpc_join(tpc_int count, const float *x, float *out)
{
    const tpc_int i = tpc_index();
    if (i < count)
        out[i] = tpc_get(x, i, count);
}

/* out[row] = ⟨row of a, row of b⟩; blocks of 128 threads, 16 to a row */
TPC_KERNEL void tpc_row_products(tpc_int rows, tpc_int width, const void *a, tpc_int a_kind, const void *b,
                                 tpc_int b_kind, float *out)
{
    __shared__ float part[128];
    const int thread = (int)threadIdx.x, lane = thread % 16;
    const tpc_int row = (tpc_int)blockIdx.x * 8 + thread / 16;
    float total = 0.0f;
    if (row < rows)
        for (tpc_int k = lane; k < width; k += 16)
            total += tpc_number(a, row * width + k, a_kind) * tpc_number(b, row * width + k, b_kind);
    part[thread] = total;
    __syncthreads();
    for (int step = 8; step > 0; step /= 2) {
        if (lane < step)
            part[thread] += part[thread + step];
        __syncthreads();
    }
    if (lane == 0 && row < rows)
        out[row] = part[thread];
}

/* --- packed powers of latents (backends/powers.py): monomials ordered by their largest index ----------------------- */

/* out[sample][first[i] + m] = g[sample][i] low[sample][m] weight, from the monomials of one degree less;
   largest[m] = i, and weight is 1 where it is none */
TPC_KERNEL void tpc_monomials(tpc_int samples, tpc_int size, tpc_int low_size, tpc_int rank, const float *g,
                              const float *low, const int *largest, const tpc_int *first, const float *weight,
                              float *out)
{
    const tpc_int at = tpc_index();
    if (at >= samples * size)
        return;
    const tpc_int sample = at / size, m = at - sample * size, i = largest[m];
    const float x = g[sample * rank + i] * low[sample * low_size + m - first[i]];
    out[at] = weight ? x * weight[m] : x;
}

/* total[sample][i] += Σ_m up[sample][first[i] + m] low[sample][m]; a block of 128 threads per sample and i */
TPC_KERNEL void tpc_slope_total(tpc_int rank, tpc_int size, tpc_int low_size, const float *up, const float *low,
                                const tpc_int *first, float *total)
{
    __shared__ float part[128];
    const int thread = (int)threadIdx.x;
    const tpc_int sample = blockIdx.x / rank, i = blockIdx.x - sample * rank;
    const tpc_int count = (i + 1 < rank ? first[i + 1] : size) - first[i];
    const float *x = up + sample * size + first[i], *y = low + sample * low_size;
    float sum = 0.0f;
    for (tpc_int m = thread; m < count; m += 128)
        sum += x[m] * y[m];
    part[thread] = sum;
    __syncthreads();
    for (int step = 64; step > 0; step /= 2) {
        if (thread < step)
            part[thread] += part[thread + step];
        __syncthreads();
    }
    if (thread == 0)
        total[sample * rank + i] += part[0];
}

/* down[sample][m] = Σ_{i ≥ largest[m]} g[sample][i] up[sample][first[i] + m] */
TPC_KERNEL void tpc_slope_down(tpc_int samples, tpc_int rank, tpc_int size, tpc_int low_size, const float *g,
                               const float *up, const int *largest, const tpc_int *first, float *down)
{
    const tpc_int at = tpc_index();
    if (at >= samples * low_size)
        return;
    const tpc_int sample = at / low_size, m = at - sample * low_size;
    float sum = 0.0f;
    for (tpc_int i = largest[m]; i < rank; i++)
        sum += g[sample * rank + i] * up[sample * size + first[i] + m];
    down[at] = sum;
}

/* --- sums outside loops; the second factor may be none ------------------------------------------------------------ */

/* out[row] = Σ_k a[row][k] b[row][k], the last row as far as there are numbers; blocks of 128 threads */
TPC_KERNEL void tpc_row_sums(tpc_int count, tpc_int width, const float *a, const float *b, float *out)
{
    __shared__ float part[128];
    const int thread = (int)threadIdx.x;
    const tpc_int start = (tpc_int)blockIdx.x * width, stop = start + width < count ? start + width : count;
    float sum = 0.0f;
    for (tpc_int k = start + thread; k < stop; k += 128)
        sum += b ? a[k] * b[k] : a[k];
    part[thread] = sum;
    __syncthreads();
    for (int step = 64; step > 0; step /= 2) {
        if (thread < step)
            part[thread] += part[thread + step];
        __syncthreads();
    }
    if (thread == 0)
        out[blockIdx.x] = part[0];
}

/* out[k] = Σ_row a[row][k] b[row][k] */
TPC_KERNEL void tpc_column_sums(tpc_int width, tpc_int rows, const float *a, const float *b, float *out)
{
    const tpc_int k = tpc_index();
    if (k >= width)
        return;
    float sum = 0.0f;
    for (tpc_int i = k; i < rows * width; i += width)
        sum += b ? a[i] * b[i] : a[i];
    out[k] = sum;
}

/* out[row] = log Σ_k exp x[row][k] */
TPC_KERNEL void tpc_logsumexp(tpc_int rows, tpc_int width, const float *x, float *out)
{
    const tpc_int row = tpc_index();
    if (row >= rows)
        return;
    const float *at = x + row * width;
    float top = at[0], sum = 0.0f;
    for (tpc_int k = 1; k < width; k++)
        top = tpc_maximum(top, at[k]);
    for (tpc_int k = 0; k < width; k++)
        sum += expf(at[k] - top);
    out[row] = logf(sum) + top;
}

/* --- the state ----------------------------------------------------------------------------------------------------- */

/* *flag = 1 where a number is not finite; arrays without numbers may be none */
TPC_KERNEL void tpc_check(tpc_int n0, tpc_int n1, tpc_int n2, tpc_int n3, tpc_int n4, tpc_int n5, tpc_int n6,
                          tpc_int n7, const float *x0, const float *x1, const float *x2, const float *x3,
                          const float *x4, const float *x5, const float *x6, const float *x7, float *flag)
{
    const tpc_int n[8] = {n0, n1, n2, n3, n4, n5, n6, n7};
    const float *const x[8] = {x0, x1, x2, x3, x4, x5, x6, x7};
    for (int k = 0; k < 8; k++)
        for (tpc_int i = tpc_index(); i < n[k]; i += (tpc_int)gridDim.x * blockDim.x)
            if (!(x[k][i] - x[k][i] == 0.0f))
                *flag = 1.0f;
}

/* out[to0] = *x0, out[to1] = *x1, … */
TPC_KERNEL void tpc_pick(tpc_int count, float *out, tpc_int to0, tpc_int to1, tpc_int to2, tpc_int to3, tpc_int to4,
                         tpc_int to5, tpc_int to6, tpc_int to7, const float *x0, const float *x1, const float *x2,
                         const float *x3, const float *x4, const float *x5, const float *x6, const float *x7)
{
    const tpc_int to[8] = {to0, to1, to2, to3, to4, to5, to6, to7};
    const float *const x[8] = {x0, x1, x2, x3, x4, x5, x6, x7};
    const tpc_int i = tpc_index();
    if (i < count)
        out[to[i]] = *x[i];
}

/* m ← momentum m + clip ∇ where there is an m;  W ← keep W - rate m (or rate clip ∇) */
TPC_KERNEL void tpc_accumulate(tpc_int count, float *w, float *m, const float *gradient, float rate, float clip,
                               float keep, float momentum)
{
    const tpc_int i = tpc_index();
    if (i >= count)
        return;
    float step = clip * gradient[i];
    if (m)
        step = m[i] = momentum * m[i] + step;
    w[i] = keep * w[i] - rate * step;
}
