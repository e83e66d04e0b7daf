package sandbox

import (
	"errors"
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsyscall "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

const (
	mayRead    = llsyscall.AccessFSReadFile | llsyscall.AccessFSReadDir
	mayExecute = mayRead | llsyscall.AccessFSExecute
	mayWrite   = mayRead | llsyscall.AccessFSWriteFile | llsyscall.AccessFSTruncate | llsyscall.AccessFSRemoveFile |
		llsyscall.AccessFSRemoveDir | llsyscall.AccessFSMakeReg | llsyscall.AccessFSMakeDir | llsyscall.AccessFSMakeSock |
		llsyscall.AccessFSMakeFifo | llsyscall.AccessFSMakeSym
	// ofFiles are the rights that a file can have, which is no directory.
	ofFiles = llsyscall.AccessFSReadFile | llsyscall.AccessFSExecute | llsyscall.AccessFSWriteFile | llsyscall.AccessFSTruncate
)

// landlock lets the plugin reach the files of the plan only, whoever it is, and
// send signals and connect to abstract sockets within itself only. Where there is
// a root of its own this is the second wall.
func (r *run) landlock() error {
	abi, err := llsyscall.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		r.notApplied("Landlock", fmt.Errorf("this kernel does not have it, or not turned on (%w)", err))
		return nil
	}
	var rules []landlock.Rule
	let := func(access landlock.AccessFSSet, paths []string) {
		for _, p := range paths {
			st, err := os.Stat(p)
			if err != nil {
				continue // what is not there can't be reached either
			}
			rights := access
			if !st.IsDir() {
				rights &= ofFiles
			}
			rules = append(rules, landlock.PathAccess(rights, p).IgnoreIfMissing())
		}
	}
	let(mayExecute, r.plan.Executable)
	let(mayRead, r.plan.Readable)
	let(mayWrite, r.plan.Writable)
	if r.plan.Confine {
		let(llsyscall.AccessFSReadFile|llsyscall.AccessFSWriteFile, devices)
	}
	c := landlock.V7.BestEffort()
	if r.plan.Network {
		err = errors.Join(c.RestrictPaths(rules...), c.RestrictScoped())
	} else {
		err = c.Restrict(rules...)
	}
	if err != nil {
		return fmt.Errorf("apply Landlock: %w", err)
	}
	if abi < 6 {
		r.applied("Landlock %d: files", abi)
		r.notApplied("Landlock on signals and abstract sockets", fmt.Errorf("it needs ABI 6 (Linux 6.12), here is %d", abi))
		return nil
	}
	r.applied("Landlock %d: files, signals, abstract sockets", abi)
	return nil
}
