/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which events are not wanted: see abi.h. */
#ifndef __FILTER_H__
#define __FILTER_H__

struct owner {
	__u64 start_ns;
	__u32 pid, tid, ns_pid, ns_tid, uid, euid, pidns, mntns, parent_pid, reserved;
	char comm[16];
};

/* Two, of which the valve names the one in force. The maps of values have room for those
 * of both: the next set's stand beside the last one's while it is taken over. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct filters);
} filters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, 16);
	__type(value, struct filter_value);
} filter_comms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct filter_number);
	__type(value, struct filter_value);
} filter_numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct filter_prefix);
	__type(value, struct filter_value);
} filter_peers SEC(".maps");

/* Events that each filtered; the quick ones from FILTERS on. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FILTERS + QUICK_FILTERS);
	__type(key, __u32);
	__type(value, __u64);
} filter_hits SEC(".maps");

/* Who an event is of, and what it is about. */
struct subject {
	__u32 pid;
	struct cgroup *cgroup;	   /* NULL: outside of every group, and never filtered */
	struct task_struct *task;  /* whose name and user count, or NULL and ... */
	const struct owner *owner; /* ... those of a socket */
	struct sock *sk;	   /* NULL: no connection */
	__u32 syscall;		   /* enum call; 0: none */
	__s32 error;		   /* an errno; 0: none */
};

/* What was found of an event so far. */
struct matching {
	__u64 rules; /* filters that match */
	__u32 quick;
};

static __always_inline void match(struct matching *m, const struct filters *f, __u32 ask,
				  const struct filter_value *v)
{
	__u64 named = v ? v->filters : 0;

	m->rules &= f->without[ask] | named;
	if (v && v->quick && !m->quick)
		m->quick = v->quick;
}

static __always_inline void match_number(struct matching *m, const struct filters *f, __u32 ask, __u32 value)
{
	struct filter_number key = { .ask = ask, .value = value };

	match(m, f, ask, bpf_map_lookup_elem(&filter_numbers, &key));
}

static __always_inline void match_connection(struct matching *m, const struct filters *f, struct sock *sk)
{
	struct filter_prefix key = { .bits = 128 };
	struct filter_number port = { .ask = ASK_PORT };
	const struct filter_value *v, *w;
	__u16 family = 0, here = 0, there = 0;

	if (f->asks & 1 << ASK_PEER) {
		bpf_core_read(&family, sizeof(family), &sk->__sk_common.skc_family);
		if (family == 2) { /* AF_INET */
			key.address[10] = key.address[11] = 0xff;
			bpf_core_read(key.address + 12, 4, &sk->__sk_common.skc_daddr);
		} else {
			bpf_core_read(key.address, 16, &sk->__sk_common.skc_v6_daddr);
		}
		match(m, f, ASK_PEER, bpf_map_lookup_elem(&filter_peers, &key));
	}
	if (f->asks & 1 << ASK_PORT) {
		bpf_core_read(&here, sizeof(here), &((struct inet_sock *)sk)->inet_sport);
		bpf_core_read(&there, sizeof(there), &sk->__sk_common.skc_dport);
		port.value = __builtin_bswap16(here);
		v = bpf_map_lookup_elem(&filter_numbers, &port);
		port.value = __builtin_bswap16(there);
		w = bpf_map_lookup_elem(&filter_numbers, &port);
		m->rules &= f->without[ASK_PORT] | (v ? v->filters : 0) | (w ? w->filters : 0);
		if (!m->quick)
			m->quick = v && v->quick ? v->quick : w ? w->quick : 0;
	}
}

static __always_inline void match_user(struct matching *m, const struct filters *f, const struct subject *s)
{
	char comm[16] = {};

	if (f->asks & 1 << ASK_COMM) {
		if (s->task)
			bpf_probe_read_kernel_str(comm, sizeof(comm), s->task->comm);
		else if (s->owner)
			__builtin_memcpy(comm, s->owner->comm, sizeof(comm));
		match(m, f, ASK_COMM, bpf_map_lookup_elem(&filter_comms, comm));
	}
	if (f->asks & 1 << ASK_UID)
		match_number(m, f, ASK_UID, s->task ? s->task->cred->uid.val : s->owner ? s->owner->uid : ~0U);
	if (f->asks & 1 << ASK_PID)
		match_number(m, f, ASK_PID, s->pid);
}

static __always_inline void count_filtered(__u32 filter)
{
	__u64 *n = bpf_map_lookup_elem(&filter_hits, &filter);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* first_of gives the place of the lowest bit of a word that is not 0. */
static __always_inline __u32 first_of(__u64 word)
{
	__u32 place = 0;

	word &= -word;
	if (word >> 32)
		place += 32, word >>= 32;
	if (word >> 16)
		place += 16, word >>= 16;
	if (word >> 8)
		place += 8, word >>= 8;
	if (word >> 4)
		place += 4, word >>= 4;
	if (word >> 2)
		place += 2, word >>= 2;
	return place + (word >> 1);
}

/* filtered tells whether an event is not wanted, and counts it; one that is may get
 * another priority than the one that it comes with. There must be filters in force. */
static __always_inline bool filtered(const struct valve *v, const struct cgroup_state *c, __u16 kind,
				     __u8 *priority, const struct subject *s)
{
	__u32 place = v->filters;
	struct matching m = {};
	__u64 looks, unwanted, decisive, ranked;
	struct filters *f;

	if (!s->cgroup)
		return false;
	place--;
	f = bpf_map_lookup_elem(&filters, &place);
	if (!f)
		return false;
	looks = f->kinds[kind & 31] & f->priorities[*priority & 7];
	m.rules = looks;
	if (f->asks & 1 << ASK_CGROUP)
		m.rules &= f->without[ASK_CGROUP] | (c ? c->filters : 0);
	match_user(&m, f, s);
	if (s->sk)
		match_connection(&m, f, s->sk);
	else
		m.rules &= f->without[ASK_PEER] & f->without[ASK_PORT];
	if (f->asks & 1 << ASK_ERROR)
		match_number(&m, f, ASK_ERROR, s->error);
	if (f->asks & 1 << ASK_SYSCALL)
		match_number(&m, f, ASK_SYSCALL, s->syscall);
	unwanted = (m.rules & f->drop) | (looks & ~m.rules & f->only);
	decisive = unwanted | (m.rules & f->keep);
	decisive &= -decisive; /* the first */
	if (decisive & unwanted) {
		count_filtered(first_of(decisive));
		return true;
	}
	if (m.quick && !decisive) {
		count_filtered(FILTERS - 1 + m.quick);
		return true;
	}
	ranked = m.rules & f->ranks;
	if (ranked) {
		place = first_of(ranked);
		*priority = f->rank[place & 63];
		count_filtered(place);
	}
	return false;
}

#endif
