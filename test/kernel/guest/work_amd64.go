package main

import "golang.org/x/sys/unix"

var openCalls = []openCall{
	{"openat", "file_openat", create, openat},
	{"openat2", "file_openat2", create, openat2},
	{"open", "file_open", create, func(path string) (int, error) {
		return legacy(unix.SYS_OPEN, path, create, 0o600)
	}},
	{"creat", "file_creat", create | unix.O_TRUNC, func(path string) (int, error) {
		return legacy(unix.SYS_CREAT, path, 0o600, 0)
	}},
}
