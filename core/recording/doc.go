// Package recording is the format in which a host's load is kept, so that samplers can
// be tried with it elsewhere: a Writer and a Reader of files, and a Recorder that makes
// of real events what is written.
//
// It exists so that a load can leave the host of which it is: nothing readable is in a
// recording, no name, path, address, argument or id, and nothing that is computed from
// one. Of each event there are its time since the recording began, its kind and
// priority, and numbers that were given out in the order in which things first
// appeared: one for its cgroup, one for its process or socket, one for the path or peer
// that it is about. Which number is whose is known to the Recorder alone, while it runs.
// What is left is the rhythm of the load, and how many of each there were.
//
// # Format
//
// A file is a header of 40 bytes, and then blocks of events as one member of gzip.
// Integers of the header are little-endian:
//
//	 0  8  magic: 89 'E' 'B' 'T' 'R' 0d 0a 1a
//	 8  2  version: 1
//	10  2  flags: 1: complete, 2: CPUs are known
//	12  4  CRC-32 (IEEE) of the header with these four bytes as 0
//	16  8  duration, ns
//	24  8  events
//	32  8  events that are missing, because they were lost on their way
//
// Complete is said only where nothing is missing. A block begins with the number of its
// events, 1 to 8192, and has a column for each of the following: the number of its
// bytes, and then for each event in order
//
//	time       µs since the event before, or since the beginning
//	class      one byte: kind · 8 + priority, with the numbers of bpf/abi.h
//	group      0: the host; else the cgroup's number, from 1
//	life       0: none; 1: the next number, from 1; n: the last new number less n - 2
//	attribute  0: none; else the number of a path or peer, at most 65535
//	cpu        only where CPUs are known: one byte
//
// Numbers are unsigned varints of encoding/binary. A group's number is at most one more
// than the greatest before. A block of 0 events is the end; after it there is nothing.
package recording
