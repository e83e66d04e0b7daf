/* load.h: what the load programs share. Each is one static binary with one C file,
 * which counts exactly what it made the kernel do and prints that as one JSON object
 * on standard output, so that a test can hold a tracer's ledger against it. */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORKERS 64

static const char *program;

static inline void die(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", program);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(2);
}

static inline uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline double cpu_seconds(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec +
	       (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static inline long number(const char *text, long least, long most)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(text, &end, 10);
	if (errno || *end || end == text || n < least || n > most)
		die("%s is not a number between %ld and %ld", text, least, most);
	return n;
}

/* share is worker i's part of n things done by w workers. */
static inline long share(long n, int w, int i)
{
	return n / w + (i < n % w);
}

/* work runs body(0) .. body(workers-1), the first on the calling thread: one worker
 * makes no thread. Nobody starts before all are there. */
static pthread_barrier_t work_barrier;
static uint64_t work_started;
static void (*work_body)(int);

static void *work_thread(void *arg)
{
	pthread_barrier_wait(&work_barrier);
	work_body((int)(intptr_t)arg);
	return NULL;
}

static inline double work(int workers, void (*body)(int))
{
	pthread_t threads[MAX_WORKERS];

	work_body = body;
	pthread_barrier_init(&work_barrier, NULL, workers);
	for (int i = 1; i < workers; i++)
		if (pthread_create(&threads[i], NULL, work_thread, (void *)(intptr_t)i))
			die("create thread: %s", strerror(errno));
	pthread_barrier_wait(&work_barrier);
	work_started = now_ns();
	body(0);
	for (int i = 1; i < workers; i++)
		pthread_join(threads[i], NULL);
	return (now_ns() - work_started) / 1e9;
}

#endif
