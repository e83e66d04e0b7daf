package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/client"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

func newReload() *cobra.Command {
	var a asking
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have a running daemon take over its changed configuration",
		Long: `Have a running daemon read its configuration file again and take over what changed,
while events flow. The file is checked as a whole first: with any mistake in it
nothing changes. A plugin whose program or configuration changed is replaced once the
new one works; if it does not, the old one goes on. SIGHUP does the same.

The exit status is 1 when the file was refused, or a part of it could not be taken
over.`,
		Example: `  ebpf-tracer reload
  ebpf-tracer reload -o json | jq '.changes[] | select(.failed)'`,
		Args: words(),
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(c *client.Client) error {
				r, err := c.Reload(cmd.Context())
				if err != nil {
					return err
				}
				if a.json() {
					err = writeJSON(cmd.OutOrStdout(), plain(r, true))
				} else {
					err = showReload(cmd.OutOrStdout(), cmd.ErrOrStderr(), r)
				}
				if err != nil {
					return err
				}
				return judgeReload(r)
			})
		}),
	}
	a.flags(cmd, "table", "json")
	return cmd
}

func showReload(out, warn io.Writer, r *protov1.ReloadResponse) error {
	if r.GetRefused() != "" {
		return nil // judgeReload says so
	}
	if w := r.GetWarnings(); w != "" {
		if _, err := io.WriteString(warn, w); err != nil {
			return err
		}
	}
	if len(r.GetChanges()) == 0 {
		_, err := fmt.Fprintln(out, "nothing has changed")
		return err
	}
	t := newTable(out, "WHAT", "ACTION", "REASON")
	for _, c := range r.GetChanges() {
		t.row(c.GetWhat(), c.GetAction(), c.GetReason())
	}
	return t.flush()
}

// judgeReload is the error of a reload that did not go as it should.
func judgeReload(r *protov1.ReloadResponse) error {
	if r.GetRefused() != "" {
		return fmt.Errorf("the configuration is refused, and nothing has changed:\n\n%s", strings.TrimRight(r.GetRefused(), "\n"))
	}
	var failed []string
	for _, c := range r.GetChanges() {
		if c.GetFailed() {
			failed = append(failed, c.GetWhat())
		}
	}
	if len(failed) > 0 {
		return errors.New("not all of the configuration could be taken over; see the reason of " + strings.Join(failed, ", "))
	}
	return nil
}
