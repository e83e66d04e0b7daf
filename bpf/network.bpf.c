//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Probe "network": the life of TCP connections.
 *
 *	CLOSE -> SYN_SENT	a connect begins; its owner is noted
 *	SYN_SENT -> ESTABLISHED	connect
 *	SYN_SENT -> CLOSE	connect failed
 *	CLOSE -> LISTEN		listen; its owner is noted
 *	SYN_RECV -> ESTABLISHED	a child of a listener, which owns it until the
 *				exit of accept tells who took it
 *	... -> CLOSE		close, if it ever was established
 *
 * Only the first and the fourth are sure to run in the process that owns the
 * socket; the others may run in a soft interrupt in anybody's time, so they
 * never look at the current task to tell whose the socket is.
 */
#include "network.h"

/* decide_state decides about an event of a socket whose owner is known from its life. */
static __always_inline bool decide_state(struct decision *d, __u16 kind, __u8 priority, struct sock *sk,
					 struct connection *c, const struct owner *owner, __s32 error)
{
	struct subject s = {
		.pid = owner->pid, .cgroup = sk->sk_cgrp_data.cgroup, .owner = owner, .sk = sk, .error = error,
	};

	return decide(d, kind, priority, draw_socket(c->cookie), &s);
}

/* decide_call decides about an event that the exit of a call tells. */
static __always_inline bool decide_call(struct decision *d, __u16 kind, __u8 priority, struct sock *sk,
					__u64 cookie, struct task_struct *t, __u32 call, __s32 error)
{
	struct subject s = {
		.pid = t->tgid, .cgroup = cgroup_of(t), .task = t, .sk = sk, .syscall = call, .error = error,
	};

	return decide(d, kind, priority, cookie ? draw_socket(cookie) : 0, &s);
}

/* state_event emits an event of a socket whose owner is known from its life. */
static __always_inline struct network_record *
state_event(struct decision *d, struct sock *sk, struct connection *c, void **ring, __u32 *index)
{
	struct network_record *r = reserve(d, struct network_record, *ring, *index);

	if (!r)
		return NULL;
	fill_decision(&r->header, d);
	fill_socket(r, sk, c->cookie);
	put_owner(&r->header, &c->owner);
	if (!c->owned)
		r->header.flags |= FLAG_OWNER_UNKNOWN;
	else if (c->role == ROLE_SERVER)
		r->header.flags |= FLAG_OWNER_LISTENER;
	return r;
}

static __always_inline void begin(struct sock *sk, __u32 role)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct connection *c;

	c = bpf_sk_storage_get(&connections, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c) {
		fault(FAULT_NO_SOCK_STORAGE);
		return;
	}
	fill_owner(&c->owner, t);
	c->owned = 1;
	c->role = role;
	c->cookie = bpf_get_socket_cookie(sk);
	c->since_ns = bpf_ktime_get_ns();
}

static __always_inline void connect_begins(struct sock *sk)
{
	struct connecting call = { .tid = bpf_get_current_pid_tgid() };
	__u64 cookie = bpf_get_socket_cookie(sk);

	begin(sk, ROLE_CLIENT);
	if (bpf_map_update_elem(&connects, &cookie, &call, BPF_ANY))
		fault(FAULT_CONNECTS);
}

static __always_inline void listens(struct sock *sk)
{
	struct connection *c;
	struct network_record *r;
	struct decision d;
	void *ring;
	__u32 index;

	begin(sk, ROLE_LISTENER);
	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (!c)
		return;
	if (!decide_state(&d, EVENT_NETWORK_LISTEN, PRIORITY_INFO, sk, c, &c->owner, 0))
		return;
	r = state_event(&d, sk, c, &ring, &index);
	if (!r)
		return;
	r->network.backlog = sk->sk_max_ack_backlog;
	submit(&d, r, sizeof(*r), ring, index);
}

static __always_inline void connected(struct sock *sk)
{
	struct connection *c;
	struct network_record *r;
	struct decision d;
	void *ring;
	__u32 index;
	__u64 began;

	c = bpf_sk_storage_get(&connections, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c) {
		fault(FAULT_NO_SOCK_STORAGE);
		return;
	}
	if (!c->cookie)
		c->cookie = bpf_get_socket_cookie(sk);
	c->role = ROLE_CLIENT;
	bpf_map_delete_elem(&connects, &c->cookie);
	began = c->since_ns;
	c->since_ns = bpf_ktime_get_ns();
	if (!decide_state(&d, EVENT_NETWORK_CONNECT, PRIORITY_INFO, sk, c, &c->owner, 0))
		return;
	r = state_event(&d, sk, c, &ring, &index);
	if (!r)
		return;
	if (began)
		r->network.duration_ns = c->since_ns - began;
	submit(&d, r, sizeof(*r), ring, index);
}

/* Whether the current task is in a call of connect, by the number of the call. */
static __always_inline bool in_connect(void)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());

#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(regs, orig_ax) == 42;
#else
	return BPF_CORE_READ(regs, syscallno) == 203;
#endif
}

static __always_inline void connect_failed(struct sock *sk)
{
	struct connection unknown = {}, *c;
	struct connecting older = { .told = 1 }, *call;
	struct network_record *r;
	struct decision d;
	void *ring;
	__u32 index;
	int error = sk->sk_err;

	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (!c) {
		unknown.cookie = bpf_get_socket_cookie(sk);
		c = &unknown;
	}
	call = bpf_map_lookup_elem(&connects, &c->cookie);
	if (call) {
		/* No error, and in the call itself: its exit has the errno. A soft
		 * interrupt never ends a connect without an error. */
		if (!error && (__u32)bpf_get_current_pid_tgid() == call->tid && in_connect())
			return;
		call->told = 1;
	} else { /* the connect is older than the probe */
		if (!error && in_connect())
			return;
		if (bpf_map_update_elem(&connects, &c->cookie, &older, BPF_ANY))
			fault(FAULT_CONNECTS);
	}
	if (!decide_state(&d, EVENT_NETWORK_CONNECT_FAILED, PRIORITY_ERROR, sk, c, &c->owner, error))
		return;
	r = state_event(&d, sk, c, &ring, &index);
	if (!r)
		return;
	r->network.error = error;
	if (c->since_ns)
		r->network.duration_ns = r->header.time_ns - c->since_ns;
	submit(&d, r, sizeof(*r), ring, index);
}

/* A child is ready: from now on it lives on its own. */
static __always_inline void child_established(struct sock *sk)
{
	struct connection *c;

	c = bpf_sk_storage_get(&connections, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!c) {
		fault(FAULT_NO_SOCK_STORAGE);
		return;
	}
	if (c->role == ROLE_CLIENT) { /* both ends called connect at a time */
		connected(sk);
		return;
	}
	c->role = ROLE_SERVER;
	c->cookie = bpf_get_socket_cookie(sk);
	c->since_ns = bpf_ktime_get_ns();
}

/* Whether a socket that closes in SYN_RECV is one that called connect. */
static __always_inline bool is_client(struct sock *sk)
{
	struct connection *c = bpf_sk_storage_get(&connections, sk, 0, 0);

	return c && c->role == ROLE_CLIENT;
}

static __always_inline void closed(struct sock *sk)
{
	struct connection unknown = {}, *c;
	struct network_record *r;
	struct decision d;
	struct tcp_sock *tcp;
	struct owner *taker = NULL;
	int error = sk->sk_err;
	__u64 sent;
	void *ring;
	__u32 index;

	c = bpf_sk_storage_get(&connections, sk, 0, 0);
	if (!c) {
		unknown.cookie = bpf_get_socket_cookie(sk);
		c = &unknown;
	}
	if (c->role == ROLE_LISTENER) { /* data came with the SYN: never SYN_RECV */
		c->role = ROLE_SERVER;
		c->cookie = bpf_get_socket_cookie(sk);
		c->since_ns = 0;
	}
	if (c->role != ROLE_CLIENT)
		taker = bpf_map_lookup_elem(&accepted, &c->cookie);
	if (!decide_state(&d, EVENT_NETWORK_CLOSE, error ? PRIORITY_WARNING : PRIORITY_INFO, sk, c,
			  taker ? taker : &c->owner, error))
		goto forget;
	r = state_event(&d, sk, c, &ring, &index);
	if (!r)
		goto forget;
	if (taker) {
		put_owner(&r->header, taker);
		r->header.flags = 0;
	}
	r->network.error = error;
	if (c->since_ns)
		r->network.duration_ns = r->header.time_ns - c->since_ns;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp) {
		sent = tcp->bytes_sent - tcp->bytes_retrans;
		r->network.sent_bytes = (__s64)sent < 0 ? 0 : sent;
		r->network.received_bytes = tcp->bytes_received;
		/* the peer's FIN takes a place in the sequence, but is no byte */
		if (r->network.received_bytes && (sk->__sk_common.skc_flags >> SOCK_DONE & 1))
			r->network.received_bytes--;
	}
	submit(&d, r, sizeof(*r), ring, index);
forget:
	if (taker)
		bpf_map_delete_elem(&accepted, &c->cookie);
	c->role = ROLE_NONE; /* the socket may be used again */
	c->since_ns = 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(network_state, struct sock *sk, int old, int new)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	switch (new) {
	case TCP_SYN_SENT:
		if (old == TCP_CLOSE)
			connect_begins(sk);
		break;
	case TCP_LISTEN:
		if (old == TCP_CLOSE)
			listens(sk);
		break;
	case TCP_ESTABLISHED:
		if (old == TCP_SYN_SENT)
			connected(sk);
		else if (old == TCP_SYN_RECV)
			child_established(sk);
		break;
	case TCP_CLOSE:
		if (old == TCP_SYN_SENT || (old == TCP_SYN_RECV && is_client(sk)))
			connect_failed(sk);
		else if (old != TCP_CLOSE && old != TCP_LISTEN && old != TCP_SYN_RECV &&
			 old != TCP_NEW_SYN_RECV)
			closed(sk);
		break;
	}
	return 0;
}

enum { S_IFMT = 0170000, S_IFSOCK = 0140000 };

/* The TCP socket behind a descriptor of the current task, or NULL. */
static __always_inline struct sock *tcp_of(struct task_struct *t, int fd)
{
	struct fdtable *table = t->files->fdt;
	struct file **slots = NULL, *file = NULL;
	struct inode *inode = NULL;
	struct socket *socket = NULL;
	struct sock *sk = NULL;
	__u16 mode = 0, protocol = 0;
	unsigned int max = 0;

	bpf_core_read(&max, sizeof(max), &table->max_fds);
	if (fd < 0 || fd >= max)
		return NULL;
	bpf_core_read(&slots, sizeof(slots), &table->fd);
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	if (!file)
		return NULL;
	bpf_core_read(&inode, sizeof(inode), &file->f_inode);
	bpf_core_read(&mode, sizeof(mode), &inode->i_mode);
	if ((mode & S_IFMT) != S_IFSOCK)
		return NULL;
	bpf_core_read(&socket, sizeof(socket), &file->private_data);
	bpf_core_read(&sk, sizeof(sk), &socket->sk);
	if (!sk)
		return NULL;
	bpf_core_read(&protocol, sizeof(protocol), &sk->sk_protocol);
	if (protocol != IPPROTO_TCP)
		return NULL;
	__u16 family = 0;
	bpf_core_read(&family, sizeof(family), &sk->__sk_common.skc_family);
	return family == AF_INET || family == AF_INET6 ? sk : NULL;
}

static __always_inline __u64 cookie_of(struct sock *sk)
{
	__u64 cookie = 0;

	bpf_core_read(&cookie, sizeof(cookie), &sk->__sk_common.skc_cookie.counter);
	return cookie;
}

static __always_inline int accept_returns(struct syscall_exit *ctx, __u32 call)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct network_record *r;
	struct decision d;
	struct owner owner;
	struct sock *sk;
	__u64 cookie;
	__u8 state = 0;
	void *ring;
	__u32 index;

	if (ctx->ret < 0)
		return 0;
	sk = tcp_of(t, ctx->ret);
	if (!sk)
		return 0;
	cookie = cookie_of(sk);
	fill_owner(&owner, t);
	if (cookie) {
		if (bpf_map_update_elem(&accepted, &cookie, &owner, BPF_ANY))
			fault(FAULT_OWNERS);
		/* it may have been reset before it was accepted */
		bpf_core_read(&state, sizeof(state), (const void *)&sk->__sk_common.skc_state);
		if (state == TCP_CLOSE)
			bpf_map_delete_elem(&accepted, &cookie);
	}
	if (!decide_call(&d, EVENT_NETWORK_ACCEPT, PRIORITY_INFO, sk, cookie, t, call, 0))
		return 0;
	r = reserve(&d, struct network_record, ring, index);
	if (!r)
		return 0;
	fill_decision(&r->header, &d);
	fill_socket(r, sk, cookie);
	put_owner(&r->header, &owner);
	submit(&d, r, sizeof(*r), ring, index);
	return 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int network_accept(struct syscall_exit *ctx)
{
	return accept_returns(ctx, CALL_ACCEPT);
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int network_accept4(struct syscall_exit *ctx)
{
	return accept_returns(ctx, CALL_ACCEPT4);
}

struct address { /* of a connect: sockaddr_in and sockaddr_in6 */
	__u16 family;
	__be16 port;
	__u32 v4_or_flow;
	__u8 v6[16];
};

/* The exit of connect tells the errors that no transition told. */
SEC("tracepoint/syscalls/sys_exit_connect")
int network_connect_exit(struct syscall_exit *ctx)
{
	struct task_struct *t = bpf_get_current_task_btf();
	__u32 index;
	struct address to = {};
	struct network_record *r;
	struct connecting *call;
	struct pt_regs *regs;
	struct decision d;
	struct owner owner;
	struct sock *sk;
	void *ring, *at;
	__u64 cookie, length;
	__u32 told;
	int fd;

	/* not the end of a connect, or none */
	if (ctx->ret >= 0 || ctx->ret <= -ERESTARTSYS || ctx->ret == -EINPROGRESS ||
	    ctx->ret == -EALREADY || ctx->ret == -EISCONN || ctx->ret == -EINTR)
		return 0;
	regs = (struct pt_regs *)bpf_task_pt_regs(t);
#if defined(__TARGET_ARCH_x86)
	fd = BPF_CORE_READ(regs, di);
	at = (void *)BPF_CORE_READ(regs, si);
	length = BPF_CORE_READ(regs, dx);
#else
	fd = BPF_CORE_READ(regs, orig_x0);
	at = (void *)BPF_CORE_READ(regs, regs[1]);
	length = BPF_CORE_READ(regs, regs[2]);
#endif
	sk = tcp_of(t, fd);
	if (!sk)
		return 0;
	cookie = cookie_of(sk);
	call = bpf_map_lookup_elem(&connects, &cookie);
	if (call) {
		told = call->told;
		bpf_map_delete_elem(&connects, &cookie);
		if (told)
			return 0;
	}
	fill_owner(&owner, t);
	if (!decide_call(&d, EVENT_NETWORK_CONNECT_FAILED, PRIORITY_ERROR, sk, cookie, t, CALL_CONNECT, -ctx->ret))
		return 0;
	r = reserve(&d, struct network_record, ring, index);
	if (!r)
		return 0;
	fill_decision(&r->header, &d);
	fill_socket(r, sk, cookie);
	put_owner(&r->header, &owner);
	r->network.error = -ctx->ret;
	if (length < 16 || bpf_probe_read_user(&to, 8, at)) {
		r->header.flags = FLAG_UNREADABLE;
	} else { /* the socket may not have taken the address */
		r->network.peer_port = __builtin_bswap16(to.port);
		if (to.family == AF_INET) {
			r->network.family = AF_INET;
			__builtin_memset(r->network.peer_addr, 0, 16);
			__builtin_memcpy(r->network.peer_addr, &to.v4_or_flow, 4);
		} else if (to.family == AF_INET6 && length >= 24) {
			bpf_probe_read_user(r->network.peer_addr, 16,
					    at + __builtin_offsetof(struct address, v6));
		}
	}
	submit(&d, r, sizeof(*r), ring, index);
	return 0;
}
