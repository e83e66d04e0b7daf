package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// choice is the value of a flag that takes one of a few words.
type choice struct {
	of []string
	is string
}

// String implements pflag.Value.
func (c *choice) String() string { return c.is }

// Type implements pflag.Value: how help calls the value.
func (c *choice) Type() string { return "format" }

// Set implements pflag.Value.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.of, s) {
		return errors.New("there are " + c.words(" and "))
	}
	c.is = s
	return nil
}

// words are all the words, the last one after last.
func (c *choice) words(last string) string {
	n := len(c.of) - 1
	return strings.Join(c.of[:n], ", ") + last + c.of[n]
}

// outputFlag gives a command the flag --output. The first format is the default.
func outputFlag(cmd *cobra.Command, c *choice, formats ...string) {
	c.of, c.is = formats, formats[0]
	cmd.Flags().VarP(c, "output", "o", c.words(" or "))
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}
