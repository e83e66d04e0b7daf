/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The decision, alone: which share of a row's events is kept now. The probes and
 * the simulator compile this same text; what differs, where a row is found and what
 * time it is, is theirs. An includer defines clock_ns(), clock_ticks() and
 * share_of_cgroup().
 *
 * The share p of an event is a function of what arrived before it, never of what
 * was drawn: what is taken from the valve is p itself, not one for each event that
 * was kept. So 1/p is an unbiased weight whatever the draws have in common, and the
 * events of one life can share theirs.
 *
 *	plan	the row's share, of the policy
 *	ladder	halves it each time the row's count doubles within an epoch, so
 *		that a burst of one class is not paid for by the others
 *	valve	one for all: halves the share for each 4 ms of budget that are spent
 *		before their time, and raises it, where the policy lets it, while
 *		budget lies unused; a cgroup that uses less than an equal part of it is
 *		spared the most of that, so that a noisy one does not starve others
 *	share	of the budget that some cgroups have to themselves: within it they are
 *		spared the valve's debt, and raised by its credit
 *	reserve	critical events, and the first of a cgroup, are kept for sure until
 *		they have used up their part of the budget
 *
 * Valve and reserve are each one number: the time until which the budget is spent.
 * Time itself refills them, and an event of cost 1/B moves it on by p/B.
 */
#ifndef __DECIDE_H__
#define __DECIDE_H__

#include "abi.h"
#include "mix.h"

enum {
	EPOCH_SHIFT = 28,	 /* of the ladder: 268 ms */
	HALVING_SHIFT = 22,	 /* 4.2 ms of debt halve the share */
	RAISE_SHIFT = 21,	 /* 2.1 ms of credit double it, where that is wanted */
	DEPTH_NS = 28 * 1000000, /* of credit: what a burst may have at once */
	RESERVE_DEPTH_NS = 128 * 1000000,
	RESERVE_SHARE = 4,	 /* a cgroup may use a fourth of the reserve */
	SPARED = 5 * 16,	 /* who uses less than its part is spared 5 halvings at most */
	OWED = 8 * 16,		 /* and who has a share of its own 8, until it is used up */
	OWED_RAISE = 7 * 16,
	SHARE_DEPTH_NS = 256 * 1000000, /* a small share has room for bursts, too */
	COST_SHIFT = 8,		 /* costs are in 1/256 ns */
};

#define CERTAIN (1ULL << 56)  /* the share 1 */
#define RAREST (1ULL << 32)   /* the least share that is not 0: 2^-24 */

/* 2^-(i/16) in 1/65536. */
static const __u32 sixteenth[16] = {
	65536, 62757, 60097, 57549, 55109, 52772, 50535, 48393,
	46341, 44376, 42495, 40693, 38968, 37316, 35734, 34219,
};

/* shrink gives share * 2^-(n/16). */
static __always_inline __u64 shrink(__u64 share, __u64 n)
{
	if (n >= 24 * 16 || share <= RAREST)
		return share < RAREST ? share : RAREST;
	share = (share >> 16) * sixteenth[n & 15] >> (n >> 4);
	return share < RAREST ? RAREST : share;
}

/* raise gives share * 2^(n/16), of which n is at most 112. */
static __always_inline __u64 raise(__u64 share, __u64 n)
{
	__u64 up = (n + 15) >> 4;

	share = ((share >> 16) << up) * sixteenth[((up << 4) - n) & 15];
	return share > CERTAIN ? CERTAIN : share;
}

/* now is the time as of the last tick, or of the last token if that was later. */
static __always_inline __u64 coarse_ns(struct valve *v)
{
	__u64 tick = clock_ticks();

	if (*(volatile __u64 *)&v->tick != tick) {
		*(volatile __u64 *)&v->tick = tick;
		*(volatile __u64 *)&v->now_ns = clock_ns();
	}
	return *(volatile __u64 *)&v->now_ns;
}

/* debt is by how much a budget is spent before its time, in sixteenths of
 * a halving; 0 in credit. */
static __always_inline __u64 debt(__u64 paid_ns, __u64 now)
{
	return paid_ns > now ? (paid_ns - now) >> (HALVING_SHIFT - 4) : 0;
}

static __always_inline void spend(__u64 *paid_ns, __u64 now, __u64 depth, __u64 cost)
{
	/* Two CPUs may cap at a time, and one's cost may be forgotten: once, and
	 * only where the budget was not used. */
	if (now > depth && *(volatile __u64 *)paid_ns < now - depth)
		*(volatile __u64 *)paid_ns = now - depth;
	__sync_fetch_and_add(paid_ns, cost);
}

/* fair gives how much of the budget's debt falls on a cgroup: all of it when it has used
 * an equal part and a halving more, a fourth when it has not, down to SPARED. */
static __always_inline __u64 fair(const struct cgroup_state *c, __u64 late, __u64 now)
{
	__u64 own = debt(c->paid_ns, now), spared = late - (late >> 2);

	if (own >= 16)
		return late;
	if (spared > SPARED)
		spared = SPARED;
	return late - (spared * (16 - own) >> 4);
}

/* owed gives how much of the budget's debt falls on who has a share of its own: what it
 * has used beyond that, and what is left when the others can't be thinned out enough. */
static __always_inline __u64 owed(const struct budget_share *b, __u64 late, __u64 now)
{
	__u64 own = debt(b->paid_ns, now), least = late > OWED ? late - OWED : 0;

	if (own > late)
		return late;
	return own > least ? own : least;
}

/* credit is how far a budget that is not spent lets shares be raised, in sixteenths of a
 * doubling. */
static __always_inline __u64 credit(__u64 paid_ns, __u64 now, __u64 most)
{
	__u64 n = (now - paid_ns) >> (RAISE_SHIFT - 4);

	return n > most ? most : n;
}

/* ladder counts the event that was just seen and gives the steps taken. */
static __always_inline __u32 ladder(struct policy_row *row, __u64 now)
{
	__u32 epoch = now >> EPOCH_SHIFT;

	row->arrived++;
	if (!row->ref)
		return 0;
	if (row->epoch != epoch) {
		row->epoch = epoch;
		row->steps = 0;
		row->span = row->ref;
		row->next = row->arrived + row->ref;
	} else if (row->arrived >= row->next && row->steps < 24) {
		row->steps++;
		row->next = row->arrived + row->span;
		row->span <<= 1;
	}
	return row->steps;
}

/* first tells whether the event is the first of its cgroup, or its first exec, and
 * remembers it. Two CPUs may both be first. */
static __always_inline bool first(struct cgroup_state *c, __u16 kind)
{
	__u32 told = c->told, bit = 1 << (kind & 31);

	if (told && (kind != EVENT_PROCESS_EXEC || (told & bit)))
		return false;
	c->told = told | bit;
	return true;
}

/*
 * share_of gives the share of the events like this one that is kept now, and pays
 * for it. c may be NULL.
 */
static __always_inline __u64 share_of(struct policy_row *row, struct valve *v,
				      struct cgroup_state *c, __u16 kind)
{
	__u64 share = CERTAIN - row->threshold, now, late, due;
	bool reserved = row->flags & ROW_RESERVED;
	struct budget_share *b;

	if (row->flags & ROW_FREE || !v->event_cost)
		return share;
	now = coarse_ns(v);
	b = c && c->share ? share_of_cgroup(c) : NULL;
	if (c && first(c, kind) && share)
		reserved = true;
	if (unlikely(reserved)) {
		share = CERTAIN;
		late = debt(v->reserve_paid_ns, now);
		if (c) {
			due = debt(c->reserve_paid_ns, now);
			late = due > late ? due : late;
		}
		if (late)
			share = shrink(share, late);
		/* in 1/65536 of an event, so that nothing overflows */
		due = (share >> 40) * v->reserve_cost >> (16 + COST_SHIFT);
		spend(&v->reserve_paid_ns, now, RESERVE_DEPTH_NS, due);
		if (c)
			spend(&c->reserve_paid_ns, now, RESERVE_DEPTH_NS, due * RESERVE_SHARE);
	} else {
		share = shrink(share, 16 * ladder(row, now));
		late = debt(v->paid_ns, now);
		if (b)
			late = owed(b, late, now);
		if (late && c)
			late = fair(c, late, now);
		if (late)
			share = shrink(share, late);
		else if (b && share && now > b->paid_ns)
			share = raise(share, credit(b->paid_ns, now, OWED_RAISE));
		else if (v->raise && now > v->paid_ns)
			share = raise(share, credit(v->paid_ns, now, v->raise));
	}
	/* Lost when a soft interrupt comes between: a token at most. */
	due = row->charged + share;
	if (unlikely(due >= v->quantum)) {
		now = clock_ns();
		*(volatile __u64 *)&v->now_ns = now;
		late = ((due & -v->quantum) >> 40) * v->event_cost >> (16 + COST_SHIFT);
		spend(&v->paid_ns, now, DEPTH_NS, late);
		/* All of it is put down to this event's cgroup, though others have had a part:
		 * it comes to whom it comes as often as it is due. */
		if (c)
			spend(&c->paid_ns, now, DEPTH_NS, late * v->sharers);
		if (b)
			spend(&b->paid_ns, now, SHARE_DEPTH_NS, late * b->parts >> 8);
		due &= v->quantum - 1;
	}
	row->charged = due;
	return share;
}

/*
 * count_one adds one to a count of a kind's row. An atomic addition waits for all that was
 * loaded before, and nothing goes on meanwhile: a fifth of a decision. It has to be one where
 * a program in a soft interrupt may come between that charges the same row. Files are opened
 * by system calls, whose programs nothing comes between: a tracepoint's runs with preemption
 * off, and the other is attached where the kernel does without.
 */
static __always_inline void count_one(__u64 *count, __u16 kind)
{
	if (kind == EVENT_FILE_OPEN)
		*(volatile __u64 *)count += 1;
	else
		__sync_fetch_and_add(count, 1);
}

/*
 * keep decides about an event that has been seen and not filtered: number is what
 * its life drew, or 0 for a fresh draw. It counts what is sampled out.
 */
static __always_inline bool keep(struct policy_row *row, struct valve *v, struct cgroup_state *c,
				 __u16 kind, __u64 number, __u64 *threshold, __u64 *random)
{
	__u64 t = CERTAIN - share_of(row, v, c, kind), x;
	struct budget_share *b;

	if (t && !number) { /* xorshift64 */
		/* a soft interrupt in between may draw the same number once */
		x = row->random;
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		row->random = x;
		number = mix(x);
	}
	*threshold = t;
	*random = number >> 8;
	if (*random < t) {
		count_one(&row->sampled_out, kind);
		return false;
	}
	count_one(&row->offered, kind);
	b = c && c->share ? share_of_cgroup(c) : NULL;
	if (b)
		__sync_fetch_and_add(&b->kept, 1);
	return true;
}

#endif
