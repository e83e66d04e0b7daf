/* openload opens and closes a file as fast as it can, or at a given rate.
 *
 *   openload [-n OPENS | -s SECONDS] [-t THREADS] [-r RATE] [-f PERCENT] PATH
 *
 * PERCENT of the opens, evenly spread, ask for PATH.absent instead, which is not there
 * and fails with ENOENT. An empty PATH fails with the same before any file system is
 * asked: no call of the family is cheaper. -n and -r, opens a second, are the sum over all
 * threads.
 *
 * Prints {"opens","failed","threads","seconds","opens_per_s","cpu_self"}: opens are all
 * calls of openat, failed those of them that returned an error.
 */
#include "load.h"
#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>

static long total, run_seconds = 1, rate;
static int threads = 1, percent;
static const char *path;
static char absent[PATH_MAX];

static struct counts {
	long opens, failed;
} __attribute__((aligned(64))) counts[MAX_WORKERS];

/* pace waits until a thread's open is due. */
static void pace(long open)
{
	uint64_t at = work_started + (uint64_t)(open * 1e9 * threads / rate);
	struct timespec until = { at / 1000000000ull, at % 1000000000ull };

	if (at > now_ns())
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void worker(int i)
{
	long left = total ? share(total, threads, i) : LONG_MAX;
	uint64_t end = total ? 0 : now_ns() + run_seconds * 1000000000ull;
	long opens = 0, failed = 0, step = 64; /* a clock costs what some opens cost */
	int owed = 0;

	if (rate && rate / threads < 64000)
		step = rate / threads / 1000 + 1;
	for (; opens < left; opens++) {
		const char *what = path;
		int fd;

		if (opens % step == 0) {
			if (end && now_ns() >= end)
				break;
			if (rate)
				pace(opens);
		}
		owed += percent;
		if (owed >= 100) {
			owed -= 100;
			what = absent;
		}
		fd = syscall(SYS_openat, AT_FDCWD, what, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			failed++;
		else
			syscall(SYS_close, fd);
	}
	counts[i].opens = opens;
	counts[i].failed = failed;
}

int main(int argc, char **argv)
{
	long opens = 0, failed = 0;
	double seconds;
	int opt;

	program = "openload";
	while ((opt = getopt(argc, argv, "n:s:t:r:f:")) != -1) {
		switch (opt) {
		case 'n': total = number(optarg, 1, LONG_MAX); break;
		case 's': run_seconds = number(optarg, 1, 86400); break;
		case 't': threads = number(optarg, 1, MAX_WORKERS); break;
		case 'r': rate = number(optarg, 1, 100000000); break;
		case 'f': percent = number(optarg, 0, 100); break;
		default: return 2;
		}
	}
	if (optind + 1 != argc)
		die("usage: openload [-n opens | -s seconds] [-t threads] [-r rate] [-f percent] path");
	path = argv[optind];
	if (snprintf(absent, sizeof(absent), "%s.absent", path) >= (int)sizeof(absent))
		die("%s is too long a path", path);

	seconds = work(threads, worker);
	for (int i = 0; i < threads; i++) {
		opens += counts[i].opens;
		failed += counts[i].failed;
	}
	printf("{\"opens\":%ld,\"failed\":%ld,\"threads\":%d,\"seconds\":%.6f,\"opens_per_s\":%.0f,"
	       "\"cpu_self\":%.3f}\n",
	       opens, failed, threads, seconds, opens / seconds, cpu_seconds(RUSAGE_SELF));
	return 0;
}
