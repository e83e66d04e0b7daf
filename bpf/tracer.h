/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What every probe shares: the maps, the decision point, the header, the ring.
 * The order within a program is always: identify, decide, then fill and emit.
 */
#ifndef __TRACER_H__
#define __TRACER_H__

#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include "abi.h"

static __always_inline __u64 clock_ns(void) { return bpf_ktime_get_ns(); }
static __always_inline __u64 clock_ticks(void) { return bpf_jiffies64(); }

#include "policy.h"
#include "decide.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Set before loading. */
const volatile __u32 self_tgid;	 /* the tracer itself, filtered out */
const volatile __u64 seed;	 /* of the numbers that lifecycles draw */
const volatile __u32 ring_count = 1;
const volatile __u8 ring_of_cpu[1024];
const volatile __u64 ring_high = ~0ULL; /* bytes waiting in a ring that is nearly full */

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct reader_state);
} readers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FAULTS);
	__type(key, __u32);
	__type(value, __u64);
} faults SEC(".maps");

static __always_inline void fault(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&faults, &which);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/*
 * The number that all events of one process, or of one socket, draw. It is a
 * function of the identity and needs no storage; an event is kept iff its
 * number is at least the threshold, so that of two classes the kept set of the
 * rarer one lies within that of the other, and pairs stay together.
 */
static __always_inline __u64 draw_process(struct task_struct *leader)
{
	return mix(seed ^ leader->start_time ^ ((__u64)leader->tgid << 40));
}

static __always_inline __u64 draw_socket(__u64 cookie)
{
	return mix(seed ^ (cookie * 0x9e3779b97f4a7c15ULL));
}

struct decision {
	struct policy_row *row;
	__u64 threshold;
	__u64 random;
	__u32 index;
	__u32 generation;
	__u16 kind;
	__u8 priority;
};

#include "filter.h"

/*
 * decide charges one event to its row and tells whether to keep it. number is
 * the lifecycle's draw, or 0 for a fresh one; s says whose event it is. The threshold
 * and the generation are those of the row the event was charged to: the table's pointer
 * is taken once.
 */
static __always_inline bool decide(struct decision *d, __u16 kind, __u8 priority, __u64 number,
				   const struct subject *s)
{
	__u32 zero = 0, index;
	void *table = bpf_map_lookup_elem(&policy, &zero);
	struct valve *v = bpf_map_lookup_elem(&valve, &zero);
	struct cgroup_state *c = NULL;
	struct policy_row *row;
	bool unwanted;

	if (!table || !v) {
		fault(FAULT_NO_POLICY);
		return false;
	}
	if (s->cgroup) {
		c = state_of(s->cgroup->kn->id);
		if (!c)
			fault(FAULT_NO_CGROUP_STATE);
	}
	unwanted = unlikely(s->pid == self_tgid) ||
		   (unlikely(v->filters) && filtered(v, c, kind, &priority, s));
	index = row_of(kind * PRIORITIES + priority, c ? c->group : 0);
	row = bpf_map_lookup_elem(table, &index);
	if (!row) {
		fault(FAULT_NO_POLICY);
		return false;
	}
	if (unwanted) {
		__sync_fetch_and_add(&row->filtered, 1);
		return false;
	}
	if (!keep(row, v, c, kind, number, &d->threshold, &d->random))
		return false;
	d->row = row;
	d->index = index;
	d->generation = row->generation;
	d->kind = kind;
	d->priority = priority;
	return true;
}

static __always_inline void charge_bytes(struct decision *d, __u64 bytes)
{
	__sync_fetch_and_add(&d->row->bytes, bytes);
}

static __always_inline void charge_lost(struct decision *d)
{
	__sync_fetch_and_add(&d->row->lost, 1);
}

/* current_ring gives the ring of this CPU; when it is nearly full, another that is less
 * so. */
static __always_inline void *current_ring(__u32 *index)
{
	__u32 next;
	void *ring, *other;
	__u64 waiting;

	*index = 0;
	if (ring_count == 1)
		return bpf_map_lookup_elem(&rings, index);
	*index = ring_of_cpu[bpf_get_smp_processor_id() & 1023];
	ring = bpf_map_lookup_elem(&rings, index);
	if (!ring)
		return NULL;
	waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
	if (likely(waiting < ring_high))
		return ring;
	next = (*index + 1 + bpf_get_prandom_u32() % (ring_count - 1)) % ring_count;
	other = bpf_map_lookup_elem(&rings, &next);
	if (!other || bpf_ringbuf_query(other, BPF_RB_AVAIL_DATA) >= waiting)
		return ring;
	*index = next;
	return other;
}

/* A wake-up costs about 10 us, a record a tenth of one: the reader is woken
 * when it sleeps for good, or when much is waiting; otherwise it comes by
 * itself. */
static __always_inline __u64 wake(void *ring, __u32 index)
{
	struct reader_state *r = bpf_map_lookup_elem(&readers, &index);
	__u32 mode;

	if (!r)
		return BPF_RB_FORCE_WAKEUP;
	mode = *(volatile __u32 *)&r->mode;
	if (mode == READER_BUSY)
		return BPF_RB_NO_WAKEUP;
	if (mode == READER_TICK && bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < r->watermark)
		return BPF_RB_NO_WAKEUP;
	*(volatile __u32 *)&r->mode = READER_BUSY;
	return BPF_RB_FORCE_WAKEUP;
}

/* output sends a record that was put together in scratch memory. */
static __always_inline void output(struct decision *d, void *record, __u64 bytes)
{
	__u32 index;
	void *ring = current_ring(&index);

	if (!ring) {
		charge_lost(d);
		return;
	}
	if (bpf_ringbuf_output(ring, record, bytes, wake(ring, index)))
		charge_lost(d);
	else
		charge_bytes(d, bytes);
}

#define reserve(d, type, ring, index)                                          \
	({                                                                     \
		type *__r = NULL;                                              \
		ring = current_ring(&index);                                   \
		if (ring)                                                      \
			__r = bpf_ringbuf_reserve(ring, sizeof(type), 0);      \
		if (!__r)                                                      \
			charge_lost(d);                                        \
		__r;                                                           \
	})

/* submit sends a record that was reserved in the ring. */
static __always_inline void submit(struct decision *d, void *record, __u64 bytes,
				   void *ring, __u32 index)
{
	charge_bytes(d, bytes);
	bpf_ringbuf_submit(record, wake(ring, index));
}

static __always_inline void fill_decision(struct event_header *e, struct decision *d)
{
	e->time_ns = bpf_ktime_get_ns();
	e->threshold = d->threshold;
	e->random = d->random;
	e->row = d->index;
	e->generation = d->generation;
	e->kind = d->kind;
	e->priority = d->priority;
	e->flags = 0;
	e->reserved = 0;
}

static __always_inline struct cgroup *cgroup_of(struct task_struct *t)
{
	return t->cgroups->dfl_cgrp;
}

struct task_ids {
	__u32 ns_pid, ns_tid, pidns;
};

/* The ids of a task in its own pid namespace. The array of ids is of a length
 * that only the kernel knows, which is why this reads by address. */
static __always_inline void fill_ns_ids(struct task_ids *ids, struct task_struct *t)
{
	struct pid *pid = t->thread_pid;
	__u32 level = pid->level;
	struct upid upid = {};
	/* at most 32 levels of 16 bytes; the verifier of 6.1 wants a bound */
	__u32 skip = level * bpf_core_type_size(struct upid) & 1023;
	void *at = (void *)pid + bpf_core_field_offset(struct pid, numbers) + skip;

	ids->ns_tid = t->pid;
	ids->ns_pid = t->tgid;
	ids->pidns = 0;
	bpf_core_read(&upid.ns, sizeof(upid.ns), &((struct upid *)at)->ns);
	bpf_core_read(&ids->pidns, sizeof(ids->pidns), &upid.ns->ns.inum);
	if (level) {
		bpf_core_read(&ids->ns_tid, sizeof(ids->ns_tid), &((struct upid *)at)->nr);
		ids->ns_pid = ids->ns_tid;
		if (t->pid != t->tgid) {
			pid = t->group_leader->thread_pid;
			at = (void *)pid + bpf_core_field_offset(struct pid, numbers) + skip;
			bpf_core_read(&ids->ns_pid, sizeof(ids->ns_pid), &((struct upid *)at)->nr);
		}
	}
}

/* fill_task writes who the event is of. */
static __always_inline void fill_task(struct event_header *e, struct task_struct *t)
{
	struct task_ids ids;

	fill_ns_ids(&ids, t);
	e->cgroup_id = cgroup_of(t)->kn->id;
	e->pid = t->tgid;
	e->tid = t->pid;
	e->ns_pid = ids.ns_pid;
	e->ns_tid = ids.ns_tid;
	e->pidns = ids.pidns;
	e->uid = t->cred->uid.val;
	e->euid = t->cred->euid.val;
	e->start_ns = t->group_leader->start_time;
	e->mntns = t->nsproxy->mnt_ns->ns.inum;
	e->netns = t->nsproxy->net_ns->ns.inum;
	e->parent_pid = t->real_parent->tgid;
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), t->comm);
}

#endif
