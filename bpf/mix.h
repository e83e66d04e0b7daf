/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef __MIX_H__
#define __MIX_H__

/* The finaliser of MurmurHash3: every bit of x moves every bit of the result. */
static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	x ^= x >> 33;
	return x;
}

#endif
