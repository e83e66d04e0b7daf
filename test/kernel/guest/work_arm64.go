package main

// open and creat are no system calls of their own here.
var openCalls = []openCall{
	{"openat", "file_openat", create, openat},
	{"openat2", "file_openat2", create, openat2},
}
