/* The functions of c_functions.h in double precision, for kernel limits. */

#include <stdint.h>
#include <string.h>

#ifdef TPC_VECTOR_LIBM
extern TPC_VECTOR_LIBM double exp(double) __attribute__((const));
extern TPC_VECTOR_LIBM double expm1(double) __attribute__((const));
extern TPC_VECTOR_LIBM double log(double) __attribute__((const));
extern TPC_VECTOR_LIBM double log1p(double) __attribute__((const));
extern TPC_VECTOR_LIBM double sin(double) __attribute__((const));
extern TPC_VECTOR_LIBM double cos(double) __attribute__((const));
extern TPC_VECTOR_LIBM double sinh(double) __attribute__((const));
extern TPC_VECTOR_LIBM double cosh(double) __attribute__((const));
extern TPC_VECTOR_LIBM double asinh(double) __attribute__((const));
extern TPC_VECTOR_LIBM double tanh(double) __attribute__((const));
extern TPC_VECTOR_LIBM double erf(double) __attribute__((const));
extern TPC_VECTOR_LIBM double erfc(double) __attribute__((const));
extern TPC_VECTOR_LIBM double asin(double) __attribute__((const));
extern TPC_VECTOR_LIBM double acos(double) __attribute__((const));
extern TPC_VECTOR_LIBM double atan2(double, double) __attribute__((const));
extern TPC_VECTOR_LIBM double pow(double, double) __attribute__((const));
#endif

TPC_DEV double tpc_clip1_double(double x) { return x < -1.0 ? -1.0 : (x > 1.0 ? 1.0 : x); }

TPC_DEV double tpc_rsqrt_double(double x) { return x > 0.0 ? 1.0 / sqrt(x) : 0.0; }

TPC_DEV double tpc_inverse_double(double x) { return x > 0.0 ? 1.0 / x : 0.0; }

/* √(x + y²) for x, y ≥ 0 */
TPC_DEV double tpc_root_sum_double(double x, double y)
{
    double unit = y > 1.0 ? y : 1.0, ratio = y / unit;
    return unit * sqrt(x / unit / unit + ratio * ratio);
}

TPC_DEV double tpc_step_double(double x) { return x > 0.0 ? 1.0 : 0.0; }

TPC_DEV double tpc_sign_double(double x) { return x > 0.0 ? 1.0 : (x < 0.0 ? -1.0 : x); }

TPC_DEV double tpc_relu_double(double x) { return x < 0.0 ? 0.0 : x; }

TPC_DEV double tpc_maximum_double(double x, double y) { return x >= y || x != x ? x : y; }

TPC_DEV double tpc_minimum_double(double x, double y) { return x <= y || x != x ? x : y; }

TPC_DEV double tpc_softplus_double(double x) { return tpc_relu_double(x) + log1p(exp(-fabs(x))); }

TPC_DEV double tpc_arccos_double(double x) { return acos(x); }

/* 2^k, given the bits of its exponent */
TPC_DEV double tpc_power_of_two(uint64_t exponent)
{
    double x;
    exponent <<= 52;
    memcpy(&x, &exponent, sizeof x);
    return x;
}

/* the bits of the exponent of √u for a power of four u with u/16 ≤ x < u, or the least u for smaller x ≥ 0 */
TPC_DEV uint64_t tpc_root_exponent(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return ((((bits >> 52) + 1) & ~(uint64_t)1) + 1024) >> 1;
}

/* √max(pq − c², 0), and 0 where pq − c² is within 16 rounding errors of pq, which is what they leave of it */
TPC_DEV double tpc_gap_double(double p, double q, double c)
{
    uint64_t first = tpc_root_exponent(p), second = tpc_root_exponent(q); /* taken out: nothing leaves its range */
    double one = tpc_power_of_two(2046 - first), other = tpc_power_of_two(2046 - second);
    p = p * one * one, q = q * other * other, c = c * one * other;
    double square = c * c;
    double difference = fma(p, q, -square) - fma(c, c, -square); /* Kahan: both roundings are made good */
    double root = difference > 0x1p-48 * (p * q) ? sqrt(difference) : 0.0;
    return root * tpc_power_of_two(first) * tpc_power_of_two(second);
}
