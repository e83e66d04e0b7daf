// Command testenv puts a real dockerd or containerd on the machine, to try the tracer by
// hand, and takes it off again:
//
//	testenv install
//	testenv docker up [-socket PATH] [-bridge]
//	testenv docker down
//	testenv containerd up [-socket PATH]
//	testenv containerd down
//
// up prints the socket's path on standard output.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

const usage = "usage: testenv install | testenv docker|containerd up [-socket PATH] [-bridge] | testenv docker|containerd down"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if slices.Equal(args, []string{"install"}) {
		return env.Install(ctx)
	}
	if len(args) < 2 || (args[0] != "docker" && args[0] != "containerd") {
		return fmt.Errorf("%s", usage)
	}
	switch runtime, verb := args[0], args[1]; verb {
	case "up":
		return up(ctx, runtime, args[2:])
	case "down":
		return env.Remove(ctx, runtime)
	}
	return fmt.Errorf("%s", usage)
}

func up(ctx context.Context, runtime string, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	socket := flags.String("socket", "", "where to listen, instead of the environment's own `path`")
	bridge := flags.Bool("bridge", false, "docker: give containers a network, in a network namespace of its own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options := []env.Option{env.WithName(runtime), env.WithSocket(*socket)}
	if *bridge {
		options = append(options, env.WithBridge())
	}
	if runtime == "docker" {
		d, err := env.NewDocker(ctx, options...)
		if err != nil {
			return err
		}
		fmt.Println(d.Socket)
		fmt.Fprintf(os.Stderr, "try: %s run --rm %s echo hello\n", d.Command(ctx), env.BusyboxImage)
		return nil
	}
	c, err := env.NewContainerd(ctx, options...)
	if err != nil {
		return err
	}
	fmt.Println(c.Socket)
	fmt.Fprintf(os.Stderr, "try: %s --rm %s an-id echo hello\n", c.Command(ctx, c.RunArgs()...), env.BusyboxImage)
	return nil
}
