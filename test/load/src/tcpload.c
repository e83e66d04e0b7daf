/* tcpload makes TCP connections on the loopback whose every byte and error it knows.
 *
 *   tcpload pairs   [-6] [-b] [-n CONNECTIONS] [-t THREADS] [-o OUT] [-i IN]
 *   tcpload serve   [-6] [-n CONNECTIONS] [-o OUT] [-i IN]
 *   tcpload connect [-6] [-b] [-n CONNECTIONS] [-t THREADS] [-o OUT] [-i IN] -P PORT
 *   tcpload fail    [-6] [-b] [-n CONNECTIONS] KIND
 *
 * Over each connection the connecting side sends OUT bytes, then the accepting side
 * sends IN bytes back; the connecting side closes first. pairs holds both sides in one
 * thread; serve and connect hold one side each, so that the two have different
 * processes. serve prints {"port":P} on a line of its own once it listens.
 * -b makes the connecting sockets non-blocking.
 *
 * fail makes CONNECTIONS connects that all fail in one way:
 *   refused      ECONNREFUSED   a port that is bound, but where nobody listens
 *   timeout      ETIMEDOUT      a listener whose backlog is full; all wait at once, 3 s
 *   unreachable  ENETUNREACH    no route there
 *   hostunreach  EHOSTUNREACH   a route that says: unreachable
 *   noaddress    EADDRNOTAVAIL  no local port is left
 *   family       EAFNOSUPPORT   an address of no family
 *   fault        EFAULT         the address is at a bad pointer
 * timeout, unreachable, hostunreach and noaddress need root: they run in a network
 * namespace of their own. timeout and noaddress open a few connections first, which are
 * counted with the others.
 *
 * Prints {"connects","accepts","listens","closes","bytes_sent","bytes_received",
 * "seconds","connects_per_s","cpu_self","errors","returned"}:
 *   connects        connections that came to be, by the connecting side
 *   accepts         connections accepted here
 *   listens         calls of listen
 *   closes          sockets closed that were connected, either side
 *   bytes_sent      by the connecting side; serve: received here
 *   bytes_received  by the connecting side; serve: sent here
 *   errors          failed connects by the errno that they came to in the end
 *   returned        calls of connect by the errno that the call itself returned
 */
#include "load.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define MAX_BYTES (1 << 20)
/* A closed connection keeps its local port in TIME_WAIT. A new listener after this many
 * connections leaves room enough for the kernel to find a free one at once. */
#define PER_LISTENER 4000
#define MAX_ERRNO 256
#define MAX_WAITING 1000

static int ipv6, nonblock, threads = 1;
static long total = 1000, out_bytes = 100, in_bytes = 200;
static int port;

static struct counts {
	long connects, accepts, listens, closes, sent, received;
	long errors[MAX_ERRNO], returned[MAX_ERRNO];
} __attribute__((aligned(64))) counts[MAX_WORKERS];

static char bytes_out[MAX_BYTES]; /* zeroes; only ever read */

/* --- addresses and sockets ---------------------------------------------- */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t address_len(void)
{
	return ipv6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static union address address(const char *v4, const char *v6, int p)
{
	union address a;

	memset(&a, 0, sizeof(a));
	if (ipv6) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(p);
		inet_pton(AF_INET6, v6, &a.v6.sin6_addr);
	} else {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(p);
		inet_pton(AF_INET, v4, &a.v4.sin_addr);
	}
	return a;
}

static union address loopback(int p)
{
	return address("127.0.0.1", "::1", p);
}

static int new_socket(int flags)
{
	int fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd < 0)
		die("socket: %s", strerror(errno));
	return fd;
}

/* bound is a socket on a free loopback port, told in *p. */
static int bound(int *p)
{
	union address a = loopback(0);
	socklen_t len = sizeof(a);
	int fd = new_socket(0);

	if (bind(fd, &a.any, address_len()))
		die("bind: %s", strerror(errno));
	if (getsockname(fd, &a.any, &len))
		die("getsockname: %s", strerror(errno));
	*p = ntohs(ipv6 ? a.v6.sin6_port : a.v4.sin_port);
	return fd;
}

static int listener(struct counts *c, int backlog, int *p)
{
	int fd = bound(p);

	if (listen(fd, backlog))
		die("listen: %s", strerror(errno));
	c->listens++;
	return fd;
}

/* --- one connection ----------------------------------------------------- */

static int connected(struct counts *c, int err)
{
	if (err) {
		c->errors[err]++;
		return 0;
	}
	c->connects++;
	return 1;
}

static int pending_error(int fd)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
		die("getsockopt: %s", strerror(errno));
	return err;
}

/* open_to connects and tells whether that came to a connection; -1 for not. */
static int open_to(struct counts *c, const union address *a)
{
	int fd = new_socket(nonblock ? SOCK_NONBLOCK : 0);
	int err = connect(fd, &a->any, address_len()) ? errno : 0;

	c->returned[err]++;
	if (err == EINPROGRESS) {
		struct pollfd p = { .fd = fd, .events = POLLOUT };

		while (poll(&p, 1, -1) < 0)
			if (errno != EINTR)
				die("poll: %s", strerror(errno));
		err = pending_error(fd);
	}
	if (connected(c, err)) {
		if (nonblock) /* so that what follows need not poll */
			fcntl(fd, F_SETFL, 0);
		return fd;
	}
	close(fd);
	return -1;
}

static void put(int fd, long n)
{
	while (n > 0) {
		ssize_t w = send(fd, bytes_out, n, MSG_NOSIGNAL);

		if (w < 0 && errno != EINTR)
			die("send: %s", strerror(errno));
		if (w > 0)
			n -= w;
	}
}

static void take(int fd, long n)
{
	char buf[65536];

	while (n > 0) {
		ssize_t r = recv(fd, buf, n < (long)sizeof(buf) ? n : (long)sizeof(buf), 0);

		if (r == 0)
			die("recv: the other side closed %ld bytes too early", n);
		if (r < 0 && errno != EINTR)
			die("recv: %s", strerror(errno));
		if (r > 0)
			n -= r;
	}
}

static void finish(struct counts *c, int fd)
{
	close(fd);
	c->closes++;
}

static int accept_one(struct counts *c, int l)
{
	int fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		die("accept: %s", strerror(errno));
	c->accepts++;
	return fd;
}

/* --- the modes with connections ------------------------------------------ */

/* Both sides are one thread, so a direction may not hold more than the kernel's buffers
 * do: it goes in pieces. */
#define PIECE 16384
static void exchange(int from, int to, long n)
{
	while (n > 0) {
		long piece = n < PIECE ? n : PIECE;

		put(from, piece);
		take(to, piece);
		n -= piece;
	}
}

static void pairs_worker(int i)
{
	struct counts *c = &counts[i];
	long left = share(total, threads, i);
	union address a;
	int l = -1;

	for (long k = 0; k < left; k++) {
		int client, server;

		if (k % PER_LISTENER == 0) {
			int p;

			if (l >= 0)
				close(l);
			l = listener(c, 16, &p);
			a = loopback(p);
		}
		client = open_to(c, &a);
		if (client < 0)
			continue;
		server = accept_one(c, l);
		exchange(client, server, out_bytes);
		exchange(server, client, in_bytes);
		c->sent += out_bytes;
		c->received += in_bytes;
		finish(c, client);
		finish(c, server);
	}
	if (l >= 0)
		close(l);
}

static void serve_worker(int i)
{
	struct counts *c = &counts[i];
	int l = listener(c, 1024, &port);

	printf("{\"port\":%d}\n", port);
	fflush(stdout);
	for (long k = 0; k < total; k++) {
		char end;
		int fd = accept_one(c, l);

		take(fd, out_bytes);
		put(fd, in_bytes);
		c->sent += out_bytes;
		c->received += in_bytes;
		/* the connecting side closes first: wait for its end */
		while (recv(fd, &end, 1, 0) < 0 && errno == EINTR)
			;
		finish(c, fd);
	}
	close(l);
}

static void connect_worker(int i)
{
	struct counts *c = &counts[i];
	union address a = loopback(port);

	for (long k = share(total, threads, i); k > 0; k--) {
		int fd = open_to(c, &a);

		if (fd < 0)
			continue;
		put(fd, out_bytes);
		take(fd, in_bytes);
		c->sent += out_bytes;
		c->received += in_bytes;
		finish(c, fd);
	}
}

/* --- connects that fail ---------------------------------------------------- */

static void sysctl(const char *name, const char *value, int must)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && !must)
		return;
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die("set %s: %s", path, strerror(errno));
	close(fd);
}

/* own_network moves the process into a network namespace with a loopback and nothing
 * else. */
static void own_network(void)
{
	struct ifreq lo = { .ifr_name = "lo" };
	int fd;

	if (unshare(CLONE_NEWNET))
		die("make a network namespace (this needs root): %s", strerror(errno));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &lo))
		die("read the loopback's flags: %s", strerror(errno));
	lo.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &lo))
		die("bring the loopback up: %s", strerror(errno));
	close(fd);
}

/* unreachable_route makes every address but the local ones answer EHOSTUNREACH. */
static void unreachable_route(void)
{
	struct {
		struct nlmsghdr head;
		struct rtmsg route;
	} ask = {
		.head = { sizeof(ask), RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 1, 0 },
		.route = { .rtm_family = ipv6 ? AF_INET6 : AF_INET, .rtm_table = RT_TABLE_MAIN,
			   .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNREACHABLE },
	};
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char rest[256];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0 || send(fd, &ask, sizeof(ask), 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
		die("ask for a route: %s", strerror(errno));
	if (answer.error.error)
		die("add a route: %s", strerror(-answer.error.error));
	close(fd);
}

static void each(struct counts *c, const union address *a)
{
	for (long k = 0; k < total; k++)
		if (open_to(c, a) >= 0)
			die("a connect that should fail did not");
}

static void fail_refused(struct counts *c)
{
	union address a;
	int p, fd = bound(&p);

	a = loopback(p);
	each(c, &a);
	close(fd);
}

static union address timeout_to;

static void timeout_worker(int i)
{
	int fd = open_to(&counts[i], &timeout_to);

	if (fd >= 0)
		die("a connect to a full backlog went through");
}

/* Each of them waits for seconds, so all must wait at once: blocking ones in a thread
 * each, the others by poll. */
static void fail_timeout(struct counts *c)
{
	static struct pollfd waiting[MAX_WAITING];
	int p, l, filler;

	own_network();
	sysctl("tcp_syn_retries", "1", 1);
	sysctl("tcp_syn_linear_timeouts", "0", 0); /* from 6.5 on: 4, a second each */
	sysctl("tcp_abort_on_overflow", "0", 1);
	l = listener(c, 0, &p);
	timeout_to = loopback(p);
	filler = open_to(c, &timeout_to); /* fills the backlog: nobody accepts it */
	if (filler < 0)
		die("the first connection to an empty backlog failed");

	if (!nonblock) {
		if (total > MAX_WORKERS)
			die("at most %d blocking connects may time out at once", MAX_WORKERS);
		work(total, timeout_worker);
	} else {
		if (total > MAX_WAITING)
			die("at most %d connects may time out at once", MAX_WAITING);
		for (long k = 0; k < total; k++) {
			int fd = new_socket(SOCK_NONBLOCK);

			c->returned[connect(fd, &timeout_to.any, address_len()) ? errno : 0]++;
			waiting[k] = (struct pollfd){ .fd = fd, .events = POLLOUT };
		}
		for (long k = 0; k < total; k++) {
			while (poll(&waiting[k], 1, -1) < 0)
				if (errno != EINTR)
					die("poll: %s", strerror(errno));
			if (connected(c, pending_error(waiting[k].fd)))
				die("a connect to a full backlog went through");
			close(waiting[k].fd);
		}
	}
	finish(c, filler);
	close(l); /* resets what was never accepted: the other half of the filler */
	c->closes++;
}

static void fail_noaddress(struct counts *c)
{
	union address a;
	int held[2], p, l;

	own_network();
	l = listener(c, 16, &p); /* its port is chosen before the range shrinks */
	a = loopback(p);
	sysctl("ip_local_port_range", p == 40000 || p == 40001 ? "41000 41001" : "40000 40001", 1);
	for (int k = 0; k < 2; k++) {
		held[k] = open_to(c, &a);
		if (held[k] < 0)
			die("a connect with a port left failed");
	}
	each(c, &a);
	for (int k = 0; k < 2; k++) {
		int server = accept_one(c, l);

		finish(c, held[k]);
		finish(c, server);
	}
	close(l);
}

static void fail(const char *kind)
{
	struct counts *c = &counts[0];
	/* from the ranges that are kept for documentation */
	union address a = address("192.0.2.1", "2001:db8::1", 9);

	if (!strcmp(kind, "refused")) {
		fail_refused(c);
	} else if (!strcmp(kind, "timeout")) {
		fail_timeout(c);
	} else if (!strcmp(kind, "unreachable")) {
		own_network();
		each(c, &a);
	} else if (!strcmp(kind, "hostunreach")) {
		own_network();
		unreachable_route();
		each(c, &a);
	} else if (!strcmp(kind, "noaddress")) {
		fail_noaddress(c);
	} else if (!strcmp(kind, "family")) {
		a.any.sa_family = AF_APPLETALK;
		each(c, &a);
	} else if (!strcmp(kind, "fault")) {
		each(c, (const union address *)16);
	} else {
		die("%s is no kind of failure", kind);
	}
}

/* --- main ------------------------------------------------------------------ */

static void print_errnos(const char *name, size_t offset)
{
	const char *comma = "";

	printf("\"%s\":{", name);
	for (int e = 0; e < MAX_ERRNO; e++) {
		long n = 0;

		for (int i = 0; i < MAX_WORKERS; i++)
			n += ((long *)((char *)&counts[i] + offset))[e];
		if (n) {
			printf("%s\"%s\":%ld", comma, e ? strerrorname_np(e) : "0", n);
			comma = ",";
		}
	}
	printf("}");
}

int main(int argc, char **argv)
{
	struct counts sum = { 0 };
	double seconds;
	const char *mode;
	int opt;

	program = "tcpload";
	if (argc < 2)
		die("usage: tcpload pairs|serve|connect|fail [option...]");
	mode = argv[1];
	optind = 2;
	while ((opt = getopt(argc, argv, "6bn:t:o:i:P:")) != -1) {
		switch (opt) {
		case '6': ipv6 = 1; break;
		case 'b': nonblock = 1; break;
		case 'n': total = number(optarg, 1, 999999999); break;
		case 't': threads = number(optarg, 1, MAX_WORKERS); break;
		case 'o': out_bytes = number(optarg, 0, MAX_BYTES); break;
		case 'i': in_bytes = number(optarg, 0, MAX_BYTES); break;
		case 'P': port = number(optarg, 1, 65535); break;
		default: return 2;
		}
	}
	work_started = now_ns();
	if (!strcmp(mode, "pairs")) {
		seconds = work(threads, pairs_worker);
	} else if (!strcmp(mode, "serve")) {
		seconds = work(1, serve_worker);
	} else if (!strcmp(mode, "connect")) {
		if (!port)
			die("connect where? Name serve's port by -P");
		seconds = work(threads, connect_worker);
	} else if (!strcmp(mode, "fail") && optind + 1 == argc) {
		fail(argv[optind]);
		seconds = (now_ns() - work_started) / 1e9;
	} else {
		die("%s: no such mode, or fail without its kind", mode);
	}

	for (int i = 0; i < MAX_WORKERS; i++) {
		sum.connects += counts[i].connects;
		sum.accepts += counts[i].accepts;
		sum.listens += counts[i].listens;
		sum.closes += counts[i].closes;
		sum.sent += counts[i].sent;
		sum.received += counts[i].received;
	}
	printf("{\"connects\":%ld,\"accepts\":%ld,\"listens\":%ld,\"closes\":%ld,\"bytes_sent\":%ld,"
	       "\"bytes_received\":%ld,\"seconds\":%.6f,\"connects_per_s\":%.0f,\"cpu_self\":%.3f,",
	       sum.connects, sum.accepts, sum.listens, sum.closes, sum.sent, sum.received, seconds,
	       sum.connects / seconds, cpu_seconds(RUSAGE_SELF));
	print_errnos("errors", offsetof(struct counts, errors));
	printf(",");
	print_errnos("returned", offsetof(struct counts, returned));
	printf("}\n");
	return 0;
}
