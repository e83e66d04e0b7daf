//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Counts what the sockets of each cgroup send and receive. Attached to the root of
 * the default hierarchy, so that every socket of the host passes; nothing is ever
 * held up: both programs always let the packet go.
 *
 * A packet is charged to the cgroup in which its socket was made, not to a
 * container: user space knows which cgroups are whose, at whatever depth.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

#define PASS 1

/* The context of the programs: fixed ABI, of which the length comes first. */
struct __sk_buff {
	__u32 len; /* from the IP header on, of a packet that may yet be cut in several */
};

struct traffic {
	__u64 received_bytes;
	__u64 received_packets;
	__u64 sent_bytes;
	__u64 sent_packets;
};

/* By cgroup id. A cgroup gets its entry with its first packet; user space takes out
 * those of cgroups that are gone. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct traffic);
} traffic SEC(".maps");

/* Packets for which there was no room there. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} overflow SEC(".maps");

static __always_inline struct traffic *traffic_of(struct __sk_buff *skb)
{
	__u64 id = bpf_skb_cgroup_id(skb);
	struct traffic *t = bpf_map_lookup_elem(&traffic, &id);
	__u32 zero = 0;

	if (!t) {
		struct traffic none = {};

		/* fails when another CPU was first, which is as good */
		bpf_map_update_elem(&traffic, &id, &none, BPF_NOEXIST);
		t = bpf_map_lookup_elem(&traffic, &id);
		if (!t)
			t = bpf_map_lookup_elem(&overflow, &zero);
	}
	return t;
}

/* The additions are atomic because a soft interrupt may come between: what a
 * process sends and what the kernel answers for it meet in one entry. */

SEC("cgroup_skb/ingress")
int account_received(struct __sk_buff *skb)
{
	struct traffic *t = traffic_of(skb);

	if (t) {
		__sync_fetch_and_add(&t->received_bytes, skb->len);
		__sync_fetch_and_add(&t->received_packets, 1);
	}
	return PASS;
}

SEC("cgroup_skb/egress")
int account_sent(struct __sk_buff *skb)
{
	struct traffic *t = traffic_of(skb);

	if (t) {
		__sync_fetch_and_add(&t->sent_bytes, skb->len);
		__sync_fetch_and_add(&t->sent_packets, 1);
	}
	return PASS;
}
