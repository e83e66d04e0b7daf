/* execload runs a program many times as fast as it can, or at a given rate, each time
 * with an argument of its own ("seq=000123"), and waits for each.
 *
 *   execload [-n EXECS] [-p WORKERS] [-r EXECS_PER_SECOND] [-a PREFIX] PROGRAM [ARG...]
 *
 * A child is made by vfork, the cheapest there is, so most of what is measured is the
 * kernel's exec and exit. The program's own argv is PROGRAM, PREFIX and six digits,
 * then ARGs. WORKERS are threads: beyond the children, WORKERS-1 clones of threads are
 * all that the kernel sees.
 *
 * Prints {"execs","exec_failed","forks","exits","nonzero","threads","seconds",
 * "execs_per_s","cpu_self","cpu_children"}: forks = execs + exec_failed = exits;
 * nonzero are the exits with a status other than 0 or by a signal.
 */
#include "load.h"
#include <stdatomic.h>
#include <sys/wait.h>

static long total = 1000, rate;
static int workers = 1;
static const char *prefix = "seq=";
static char **command;
static int command_len;

static atomic_long next_seq;
static struct counts {
	long execs, exec_failed, forks, exits, nonzero;
} __attribute__((aligned(64))) counts[MAX_WORKERS];

extern char **environ;

static void pace(long seq)
{
	/* the program's start, not the worker's: the rate is that of all workers */
	uint64_t at = work_started + (uint64_t)(seq * 1e9 / rate);
	struct timespec t = { at / 1000000000ull, at % 1000000000ull };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void worker(int i)
{
	struct counts *c = &counts[i];
	char name[256];
	char *argv[command_len + 2];

	argv[0] = command[0];
	argv[1] = name;
	for (int k = 1; k <= command_len; k++)
		argv[k + 1] = command[k]; /* the last is NULL */

	for (;;) {
		long seq = atomic_fetch_add_explicit(&next_seq, 1, memory_order_relaxed);
		volatile int failed = 0; /* written by the child: vfork shares the memory */
		int status;
		pid_t pid;

		if (seq >= total)
			return;
		snprintf(name, sizeof(name), "%s%06ld", prefix, seq);
		if (rate)
			pace(seq);
		pid = vfork();
		if (pid == 0) {
			execve(argv[0], argv, environ);
			failed = errno;
			_exit(127);
		}
		if (pid < 0)
			die("vfork: %s", strerror(errno));
		c->forks++;
		if (failed)
			c->exec_failed++;
		else
			c->execs++;
		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				die("waitpid: %s", strerror(errno));
		c->exits++;
		if (status != 0)
			c->nonzero++;
	}
}

int main(int argc, char **argv)
{
	struct counts sum = { 0 };
	double seconds;
	int opt;

	program = "execload";
	while ((opt = getopt(argc, argv, "+n:p:r:a:")) != -1) {
		switch (opt) {
		case 'n': total = number(optarg, 1, 999999999); break;
		case 'p': workers = number(optarg, 1, MAX_WORKERS); break;
		case 'r': rate = number(optarg, 1, 10000000); break;
		case 'a': prefix = optarg; break;
		default: return 2;
		}
	}
	if (optind >= argc)
		die("usage: execload [-n execs] [-p workers] [-r execs/s] [-a prefix] program [arg...]");
	command = argv + optind;
	command_len = argc - optind;

	seconds = work(workers, worker);
	for (int i = 0; i < workers; i++) {
		sum.execs += counts[i].execs;
		sum.exec_failed += counts[i].exec_failed;
		sum.forks += counts[i].forks;
		sum.exits += counts[i].exits;
		sum.nonzero += counts[i].nonzero;
	}
	printf("{\"execs\":%ld,\"exec_failed\":%ld,\"forks\":%ld,\"exits\":%ld,\"nonzero\":%ld,"
	       "\"threads\":%d,\"seconds\":%.6f,\"execs_per_s\":%.0f,"
	       "\"cpu_self\":%.3f,\"cpu_children\":%.3f}\n",
	       sum.execs, sum.exec_failed, sum.forks, sum.exits, sum.nonzero, workers, seconds,
	       sum.execs / seconds, cpu_seconds(RUSAGE_SELF), cpu_seconds(RUSAGE_CHILDREN));
	return 0;
}
