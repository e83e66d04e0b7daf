package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebpf-tracer/ebpf-tracer/core/kernel"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
)

func main() {
	if sandbox.Called() {
		sandbox.Main()
	}
	if len(os.Args) > 2 && os.Args[1] == "work" {
		if err := work(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintf(os.Stderr, "guest work %s: %v\n", os.Args[2], err)
			os.Exit(3)
		}
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "cost" {
		if err := cost(os.Stdout, os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "guest cost: %v\n", err)
			os.Exit(1)
		}
		return
	}
	partial := flag.Bool("partial", false, "take a kernel that lacks some programs")
	want := flag.String("want", "", "with -partial: the programs that lack, comma-separated, no more and no fewer")
	emulated := flag.Bool("emulated", false, "the machine is qemu's, and its second CPU may be taken away for a moment")
	functions := flag.String("functions", "any", "the programs that tell a system call by its function, comma-separated, no more and no fewer")
	plugins := flag.String("plugins", "", "a directory with the hostile plugin, which is run too")
	flag.Parse()
	var lacking []string
	if *want != "" {
		lacking = strings.Split(*want, ",")
	}
	if err := run(os.Stdout, *partial, lacking, *functions, *emulated, *plugins); err != nil {
		fmt.Fprintf(os.Stdout, "FAIL  %v\n", err)
		os.Exit(1)
	}
	fmt.Println("PASS")
}

// errWrong says that the report has lines that begin with FAIL.
var errWrong = errors.New("not everything was told as it happened")

func run(out io.Writer, partial bool, lacking []string, functions string, emulated bool, plugins string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("ask for the kernel's version: %w", err)
	}
	fmt.Fprintf(out, "kernel %s\n", unix.ByteSliceToString(u.Release[:]))

	t, err := start()
	if err != nil {
		return err
	}
	defer t.close()

	failed, by := report(out, t.kernel.Probes())
	if functions != "any" && strings.Join(by, ",") != functions {
		return fmt.Errorf("of functions: %s; expected: %s", strings.Join(by, ","), functions)
	}
	slices.Sort(failed)
	slices.Sort(lacking)
	if !partial && len(failed) > 0 {
		return fmt.Errorf("not attached: %s", strings.Join(failed, ", "))
	}
	if lacking != nil && !slices.Equal(failed, lacking) {
		return fmt.Errorf("not attached: %s; expected: %s", strings.Join(failed, ", "), strings.Join(lacking, ", "))
	}

	done, err := act()
	if err != nil {
		return fmt.Errorf("make events: %w", err)
	}
	done.exitProgram = exitProgram(t.kernel.Probes())
	expected := slices.DeleteFunc(expectations(done), func(x expectation) bool {
		return x.needs != "" && slices.Contains(failed, x.needs)
	})
	if err := t.await(expected); err != nil {
		return err
	}
	records, err := t.stop()
	if err != nil {
		return err
	}
	wrong := judge(out, expected, records)
	wrong += t.ledger(out, records)
	n, err := resources(out, emulated)
	if err != nil {
		return fmt.Errorf("measure a container: %w", err)
	}
	wrong += n
	if plugins != "" {
		began := time.Now()
		n, err := confine(out, plugins)
		if err != nil {
			return fmt.Errorf("confine a plugin: %w", err)
		}
		wrong += n
		fmt.Fprintf(out, "confinement took %s\n", time.Since(began).Round(time.Millisecond))
	}
	if wrong > 0 {
		return errWrong
	}
	return nil
}

// report lists the programs and gives the names of those that were refused, and of those
// that are attached to the function of a system call.
func report(out io.Writer, probes []kernel.Probe) (failed, functions []string) {
	for _, p := range probes {
		for _, name := range p.Programs {
			if strings.HasSuffix(name, "_fexit") {
				functions = append(functions, name)
			}
		}
		fmt.Fprintf(out, "probe %-8s %-11s %s\n", p.Name, p.State(), strings.Join(p.Programs, " "))
		for _, f := range p.Failed {
			failed = append(failed, f.Program)
			fmt.Fprintf(out, "      %s: %v\n", f.Program, f.Reason)
		}
	}
	return failed, functions
}

// exitProgram is the one of two that this kernel takes exits from.
func exitProgram(probes []kernel.Probe) string {
	for _, p := range probes {
		for _, name := range p.Programs {
			if strings.HasPrefix(name, "process_exit") {
				return name
			}
		}
		for _, f := range p.Failed {
			if strings.HasPrefix(f.Program, "process_exit") {
				return f.Program
			}
		}
	}
	return ""
}
