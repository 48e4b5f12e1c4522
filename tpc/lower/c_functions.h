/* Scalar functions of kernel code, for C and CUDA alike. TPC_DEV says how they are declared. */

#ifndef __CUDACC_RTC__ /* which has these functions built in */
#include <math.h>
#endif

#ifndef TPC_DEV
#ifdef __CUDACC__
#define TPC_DEV __device__ __forceinline__
#else
#define TPC_DEV static inline __attribute__((always_inline, unused))
#endif
#endif

/* glibc's vector variants of the functions of libm, which its header declares only under -ffast-math */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#if __GLIBC_PREREQ(2, 35)
#define TPC_VECTOR_LIBM __attribute__((simd("notinbranch")))
extern TPC_VECTOR_LIBM float expf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float expm1f(float) __attribute__((const));
extern TPC_VECTOR_LIBM float logf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float log1pf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float sinf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float cosf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float sinhf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float coshf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float asinhf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float tanhf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float erff(float) __attribute__((const));
extern TPC_VECTOR_LIBM float erfcf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float asinf(float) __attribute__((const));
extern TPC_VECTOR_LIBM float atan2f(float, float) __attribute__((const));
extern TPC_VECTOR_LIBM float powf(float, float) __attribute__((const));
#endif
#endif

/* x clipped to [-1, 1]; NaN stays */
TPC_DEV float tpc_clip1(float x) { return x < -1.0f ? -1.0f : (x > 1.0f ? 1.0f : x); }

/* 1/√x where x > 0, else 0 */
TPC_DEV float tpc_rsqrt(float x) { return x > 0.0f ? 1.0f / sqrtf(x) : 0.0f; }

/* 1/x where x > 0, else 0 */
TPC_DEV float tpc_inverse(float x) { return x > 0.0f ? 1.0f / x : 0.0f; }

/* √(x + y²) for x ≥ 0; the square of a float does not overflow in doubles */
TPC_DEV float tpc_root_sum(float x, float y) { return (float)sqrt((double)x + (double)y * (double)y); }

TPC_DEV float tpc_step(float x) { return x > 0.0f ? 1.0f : 0.0f; }

TPC_DEV float tpc_sign(float x) { return x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : x); }

TPC_DEV float tpc_relu(float x) { return x < 0.0f ? 0.0f : x; }

/* NaN if either is */
TPC_DEV float tpc_maximum(float x, float y) { return x >= y || x != x ? x : y; }

TPC_DEV float tpc_minimum(float x, float y) { return x <= y || x != x ? x : y; }

/* log(1 + e^x) */
TPC_DEV float tpc_softplus(float x) { return tpc_relu(x) + log1pf(expf(-fabsf(x))); }

/* √max(pq − c², 0) from exact products, so that nothing cancels near |c| = √(pq) */
TPC_DEV float tpc_gap(float p, float q, float c)
{
    double wide = (double)p * (double)q - (double)c * (double)c;
    return (float)sqrt(wide < 0.0 ? 0.0 : wide);
}

/* arccos: √(1 − |x|) times a polynomial, so accurate at ±1 too; relative error below 2e-7 */
TPC_DEV float tpc_arccos(float x)
{
    float a = fabsf(x);
    float series = 0.0006993961f;
    series = series * a - 0.0040345895f;
    series = series * a + 0.01112696f;
    series = series * a - 0.02081215f;
    series = series * a + 0.032611385f;
    series = series * a - 0.050604004f;
    series = series * a + 0.08903147f;
    series = series * a - 0.21460123f;
    series = series * a + 1.5707964f;
    float angle = sqrtf(1.0f - a) * series;
    return x < 0.0f ? 3.1415927f - angle : angle;
}
