/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the states of a socket and the calls of its owner have in common: who owns
 * it, what is kept of it in between, and how a record of it is filled.
 */
#ifndef __NETWORK_H__
#define __NETWORK_H__

#include "tracer.h"

enum { AF_INET = 2, AF_INET6 = 10, IPPROTO_TCP = 6 };
enum { EINTR = 4, EALREADY = 114, EINPROGRESS = 115, EISCONN = 106, ERESTARTSYS = 512 };
enum role { ROLE_NONE = 0, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER };

struct connection {
	struct owner owner;
	__u64 since_ns; /* SYN_SENT, then ESTABLISHED */
	__u64 cookie;
	__u32 role;
	__u32 owned;
};

/* A child inherits its listener's (BPF_F_CLONE). */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct connection);
} connections SEC(".maps");

/*
 * Connects that have begun, by the socket's cookie: what the exit of the call must
 * know not to tell a failure twice. An entry ends with the connection's
 * establishment or with the call that fetches the error; those that nobody
 * fetches are what the least recently used ones make way for. The storage of a
 * socket can't be reached from a system call's tracepoint.
 */
struct connecting {
	__u32 tid;
	__u32 told;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct connecting);
} connects SEC(".maps");

/* Who accepted a socket, by its cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct owner);
} accepted SEC(".maps");

struct network_record {
	struct event_header header;
	struct event_network network;
};

static __always_inline void fill_owner(struct owner *o, struct task_struct *t)
{
	struct task_ids ids;

	fill_ns_ids(&ids, t);
	o->pid = t->tgid;
	o->tid = t->pid;
	o->ns_pid = ids.ns_pid;
	o->ns_tid = ids.ns_tid;
	o->pidns = ids.pidns;
	o->uid = t->cred->uid.val;
	o->euid = t->cred->euid.val;
	o->start_ns = t->group_leader->start_time;
	o->reserved = 0;
	o->mntns = t->nsproxy->mnt_ns->ns.inum;
	o->parent_pid = t->real_parent->tgid;
	bpf_probe_read_kernel(o->comm, sizeof(o->comm), t->comm);
}

static __always_inline void put_owner(struct event_header *e, const struct owner *o)
{
	e->pid = o->pid;
	e->tid = o->tid;
	e->ns_pid = o->ns_pid;
	e->ns_tid = o->ns_tid;
	e->uid = o->uid;
	e->euid = o->euid;
	e->start_ns = o->start_ns;
	e->pidns = o->pidns;
	e->mntns = o->mntns;
	e->parent_pid = o->parent_pid;
	__builtin_memcpy(e->comm, o->comm, sizeof(e->comm));
}

/* Addresses by bpf_core_read, so that one function serves a socket that the
 * verifier knows and one that was found by its descriptor. */
static __always_inline void fill_addresses(struct event_network *n, struct sock *sk)
{
	struct inet_sock *inet = (void *)sk;

	bpf_core_read(&n->family, sizeof(n->family), &sk->__sk_common.skc_family);
	bpf_core_read(&n->local_port, sizeof(n->local_port), &inet->inet_sport);
	bpf_core_read(&n->peer_port, sizeof(n->peer_port), &sk->__sk_common.skc_dport);
	n->local_port = __builtin_bswap16(n->local_port);
	n->peer_port = __builtin_bswap16(n->peer_port);
	__builtin_memset(n->local_addr, 0, 32);
	if (n->family == AF_INET) {
		bpf_core_read(n->local_addr, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_core_read(n->peer_addr, 4, &sk->__sk_common.skc_daddr);
	} else {
		bpf_core_read(n->local_addr, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(n->peer_addr, 16, &sk->__sk_common.skc_v6_daddr);
	}
}

static __always_inline void fill_socket(struct network_record *r, struct sock *sk, __u64 cookie)
{
	struct cgroup *cgroup;
	struct kernfs_node *kn;
	struct net *net;

	bpf_core_read(&cgroup, sizeof(cgroup), &sk->sk_cgrp_data.cgroup);
	bpf_core_read(&kn, sizeof(kn), &cgroup->kn);
	r->header.cgroup_id = 0;
	bpf_core_read(&r->header.cgroup_id, sizeof(r->header.cgroup_id), &kn->id);
	bpf_core_read(&net, sizeof(net), &sk->__sk_common.skc_net.net);
	r->header.netns = 0;
	bpf_core_read(&r->header.netns, sizeof(r->header.netns), &net->ns.inum);
	fill_addresses(&r->network, sk);
	r->network.cookie = cookie;
	r->network.duration_ns = 0;
	r->network.sent_bytes = 0;
	r->network.received_bytes = 0;
	r->network.error = 0;
	r->network.backlog = 0;
	r->network.reserved = 0;
}

#endif
