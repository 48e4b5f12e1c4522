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

TPC_DEV double tpc_step_double(double x) { return x > 0.0 ? 1.0 : 0.0; }

TPC_DEV double tpc_sign_double(double x) { return x > 0.0 ? 1.0 : (x < 0.0 ? -1.0 : x); }

TPC_DEV double tpc_relu_double(double x) { return x < 0.0 ? 0.0 : x; }

TPC_DEV double tpc_maximum_double(double x, double y) { return x >= y || x != x ? x : y; }

TPC_DEV double tpc_minimum_double(double x, double y) { return x <= y || x != x ? x : y; }

TPC_DEV double tpc_softplus_double(double x) { return tpc_relu_double(x) + log1p(exp(-fabs(x))); }

TPC_DEV double tpc_arccos_double(double x) { return acos(x); }

/* the power of two of x > 0 */
TPC_DEV double tpc_power_of_two(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0x7ff0000000000000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* √max(pq − c², 0), and 0 where pq − c² is within `settled`·pq, which is what rounding errors leave of it */
TPC_DEV double tpc_gap_double(double p, double q, double c, double settled)
{
    double unit = tpc_power_of_two(p > q ? p : q); /* taken out: products must not overflow */
    double inverse = unit > 0.0 ? 1.0 / unit : 0.0;
    p *= inverse, q *= inverse, c *= inverse;
    double square = c * c;
    double difference = fma(p, q, -square) - fma(c, c, -square); /* Kahan: both roundings are made good */
    return difference > settled * p * q ? sqrt(difference) * unit : 0.0;
}
