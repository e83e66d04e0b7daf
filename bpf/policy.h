/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that a decision goes by, the same for the probes and the simulator. */
#ifndef __POLICY_H__
#define __POLICY_H__

#include "abi.h"

/* What is seldom done is out of the way of what is done for every event: 2 to 5 ns of it. */
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct table {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, POOLED_ROWS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct policy_row));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct table);
} policy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct valve);
} valve SEC(".maps");

/* A group is named by its entry; 0 is no group. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct group_rows);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SHARES);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct budget_share);
} shares SEC(".maps");

/* share_of_cgroup gives the share of the budget that a cgroup has a part in; NULL: none. */
static __always_inline struct budget_share *share_of_cgroup(const struct cgroup_state *c)
{
	__u32 place = c->share;
	struct budget_share *b;

	if (!place)
		return NULL;
	b = bpf_map_lookup_elem(&shares, &place);
	return b && b->parts ? b : NULL;
}

/* How many places there are for cgroups, less one: a power of two is. */
const volatile __u32 cgroup_places = 1;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cgroup_state);
} cgroups SEC(".maps");

/* Whose each place is: who makes the entry has it, on kernels too that can't compare and
 * exchange. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} cgroup_owners SEC(".maps");

static __always_inline __u32 home_of(__u64 id)
{
	return id * 0x9e3779b97f4a7c15ULL >> 32 & cgroup_places;
}

/* place_of gives the place of a cgroup that is not at home, or has none yet; a number
 * that is none when all near are taken. */
static __noinline __u32 place_of(__u64 id)
{
	__u32 place, i;
	struct cgroup_state *c;
	__u64 *owner;

	for (i = 0; i < NEAR; i++) {
		place = (home_of(id) + i) & cgroup_places;
		c = bpf_map_lookup_elem(&cgroups, &place);
		if (c && *(volatile __u64 *)&c->id == id)
			return place;
	}
	for (i = 0; i < NEAR; i++) {
		place = (home_of(id) + i) & cgroup_places;
		c = bpf_map_lookup_elem(&cgroups, &place);
		if (!c)
			break;
		if (*(volatile __u64 *)&c->id == id)
			return place;
		if (*(volatile __u64 *)&c->id)
			continue;
		if (!bpf_map_update_elem(&cgroup_owners, &place, &id, BPF_NOEXIST)) {
			*(volatile __u64 *)&c->id = id;
			return place;
		}
		owner = bpf_map_lookup_elem(&cgroup_owners, &place);
		if (owner && *owner == id)
			return place;
	}
	return ~0U;
}

/* state_of gives what is known of a cgroup, and begins to know it; NULL without a place. */
static __always_inline struct cgroup_state *state_of(__u64 id)
{
	__u32 place = home_of(id);
	struct cgroup_state *c = bpf_map_lookup_elem(&cgroups, &place);

	if (likely(c && *(volatile __u64 *)&c->id == id))
		return c;
	place = place_of(id);
	return bpf_map_lookup_elem(&cgroups, &place);
}

/* forget gives back the place of a cgroup that is removed. */
static __always_inline void forget(__u64 id)
{
	struct cgroup_state *c;
	__u32 place, i;

	for (i = 0; i < NEAR; i++) {
		place = (home_of(id) + i) & cgroup_places;
		c = bpf_map_lookup_elem(&cgroups, &place);
		if (!c || *(volatile __u64 *)&c->id != id)
			continue;
		__builtin_memset(c, 0, sizeof(*c));
		bpf_map_delete_elem(&cgroup_owners, &place);
	}
}

/* row_of gives the row of a class of a group, 0 being none. */
static __always_inline __u32 row_of(__u32 class, __u32 group)
{
	struct group_rows *g;
	__u16 row;

	if (!group)
		return class;
	g = bpf_map_lookup_elem(&groups, &group);
	if (!g)
		return class;
	row = g->row[class & (PROMOTED_ROW - 1)];
	return row ? row : class;
}

#endif
