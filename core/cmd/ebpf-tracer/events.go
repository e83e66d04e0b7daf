package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/core/event"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
)

func newEvents() *cobra.Command {
	var a asking
	var filter client.EventFilter
	var most uint64
	cmd := &cobra.Command{
		Use:     "events",
		Aliases: []string{"event"},
		Short:   "Show events as they happen",
		Long: `Show events from now on, until Ctrl-C: each as a line of JSON, the same as the json
exporter writes, or with -o table as a short line for people. What is read too slowly
is dropped, and said on standard error.`,
		Example: `  ebpf-tracer get events
  ebpf-tracer get events -o table --container web-1
  ebpf-tracer get events --kind process.exec,process.exit -n 10
  ebpf-tracer get events --kind network.connect_failed | jq .error.type`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				stream, err := c.WatchEvents(cmd.Context(), filter)
				if err == nil {
					err = showEvents(cmd, stream, !a.json(), most)
				}
				if cmd.Context().Err() != nil {
					return nil // Ctrl-C
				}
				return err
			})
		}),
	}
	a.flags(cmd, "json", "table")
	cmd.Flags().StringSliceVar(&filter.Kinds, "kind", nil, "only events of these `kinds`, such as process.exec")
	cmd.Flags().StringVar(&filter.Container, "container", "", "only events of this container: the beginning of its `id`, or its name")
	cmd.Flags().Uint64VarP(&most, "count", "n", 0, "end after so many events; 0: never")
	var kinds []string
	for k := range event.Kinds {
		kinds = append(kinds, k.String())
	}
	if err := cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(kinds, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
	return cmd
}

// showEvents writes events until the stream ends or most were written.
func showEvents(cmd *cobra.Command, stream *client.EventStream, short bool, most uint64) error {
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	var written, dropped uint64
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		for line := range bytes.Lines(batch.Lines) {
			if err := showEvent(out, line, short); err != nil {
				return err
			}
			if written++; written == most {
				return flush(out)
			}
		}
		if err := flush(out); err != nil {
			return err
		}
		if batch.Dropped > dropped {
			dropped = batch.Dropped
			fmt.Fprintf(cmd.ErrOrStderr(), "%d events were missed so far: they are read too slowly\n", dropped)
		}
	}
}

func flush(out *bufio.Writer) error {
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	return nil
}

func showEvent(out io.Writer, line []byte, short bool) error {
	if short {
		text, err := eventLine(line)
		if err != nil {
			return errors.Join(errors.New("the daemon sent an event that is no JSON"), err)
		}
		line = text
	}
	_, err := out.Write(line)
	return err
}
