package exporter

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// Tables of names, made once, so that a name costs an index and no allocation.
var (
	errnoNames = func() (t [256]string) {
		for i := range t {
			if t[i] = unix.ErrnoName(unix.Errno(i)); t[i] == "" {
				t[i] = strconv.Itoa(i)
			}
		}
		return t
	}()
	signalNames = func() (t [65]string) {
		for i := range t {
			if t[i] = unix.SignalName(unix.Signal(i)); t[i] == "" {
				t[i] = "SIG" + strconv.Itoa(i)
			}
		}
		return t
	}()
)

func errnoName(n uint32) string {
	if n < uint32(len(errnoNames)) {
		return errnoNames[n]
	}
	return "other"
}

func signalName(n uint32) string {
	if n < uint32(len(signalNames)) {
		return signalNames[n]
	}
	return "other"
}
