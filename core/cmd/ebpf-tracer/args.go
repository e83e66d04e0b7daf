package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// words takes one word for each name, and says which one is missing. Without names
// there are no words.
func words(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("%s is missing", names[len(args)])
		}
		return noMore(cmd, args[len(names):])
	}
}

// oneWord takes a word, or none.
func oneWord(cmd *cobra.Command, args []string) error {
	return noMore(cmd, args[min(1, len(args)):])
}

// noMore refuses words that have no meaning.
func noMore(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.Flags().Lookup("config") != nil:
		return fmt.Errorf("unexpected %q: a configuration is named with --config FILE", args[0])
	default:
		return fmt.Errorf("unexpected %q", args[0])
	}
}
