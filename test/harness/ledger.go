package harness

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Counts of a row: Seen = Kept + SampledOut + Filtered + Lost.
type Counts struct{ Seen, Kept, SampledOut, Filtered, Lost int64 }

func (c *Counts) add(o Counts) {
	c.Seen += o.Seen
	c.Kept += o.Kept
	c.SampledOut += o.SampledOut
	c.Filtered += o.Filtered
	c.Lost += o.Lost
}

// Class is what a row counts.
type Class struct{ Kind, Priority string }

// Exported is an exporter's part.
type Exported struct{ Released, Exported, QueueDropped, Failed, ScopedOut, Queued int64 }

// Ledger is what the daemon prints when it ends.
type Ledger struct {
	Rows map[Class]Counts

	Kept, Decoded, Injected, Malformed, InRing, Released, Held, SkippedRuns int64

	Exporters map[string]Exported
	Closes    bool // by the daemon's own word
}

// Kind adds up the rows of a kind.
func (l *Ledger) Kind(kind string) (sum Counts) {
	for class, c := range l.Rows {
		if class.Kind == kind {
			sum.add(c)
		}
	}
	return sum
}

// Sum adds up all rows.
func (l *Ledger) Sum() (sum Counts) {
	for _, c := range l.Rows {
		sum.add(c)
	}
	return sum
}

var (
	rowLine      = regexp.MustCompile(`^ *([a-z]+\.[a-z_]+) +([a-z]+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) *$`)
	pipelineLine = regexp.MustCompile(`^kept (\d+) = decoded (\d+) \+ injected (\d+) \+ malformed (\d+) \+ in ring (\d+); decoded \+ injected = released (\d+) \+ held (\d+); skipped runs (\d+)$`)
	exporterLine = regexp.MustCompile(`^(\S+): released (\d+) = exported (\d+) \+ queue dropped (\d+) \+ failed (\d+) \+ scoped out (\d+) \+ queued (\d+)$`)
)

const closesLine = "the ledger closes"

// ParseLedger reads the ledger out of what a daemon wrote on standard error.
func ParseLedger(stderr string) (*Ledger, error) {
	l := &Ledger{Rows: map[Class]Counts{}, Exporters: map[string]Exported{}}
	found := false
	for line := range strings.Lines(stderr) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == closesLine:
			l.Closes = true
		case rowLine.MatchString(line):
			m := rowLine.FindStringSubmatch(line)
			n := numbers(m[3:])
			class := Class{m[1], m[2]}
			sum := l.Rows[class]
			sum.add(Counts{n[0], n[1], n[2], n[3], n[4]})
			l.Rows[class] = sum
		case pipelineLine.MatchString(line):
			n := numbers(pipelineLine.FindStringSubmatch(line)[1:])
			l.Kept, l.Decoded, l.Injected, l.Malformed, l.InRing = n[0], n[1], n[2], n[3], n[4]
			l.Released, l.Held, l.SkippedRuns = n[5], n[6], n[7]
			found = true
		case exporterLine.MatchString(line):
			m := exporterLine.FindStringSubmatch(line)
			n := numbers(m[2:])
			l.Exporters[m[1]] = Exported{n[0], n[1], n[2], n[3], n[4], n[5]}
		}
	}
	if !found {
		return nil, fmt.Errorf("no ledger was printed")
	}
	return l, nil
}

func numbers(texts []string) []int64 {
	out := make([]int64, len(texts))
	for i, s := range texts {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			panic(err) // the patterns let only digits through
		}
		out[i] = n
	}
	return out
}

// Check says in sentences where the ledger's own sums do not come out.
func (l *Ledger) Check() (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if !l.Closes {
		complain("the daemon says that its ledger does not close")
	}
	for class, c := range l.Rows {
		if c.Seen != c.Kept+c.SampledOut+c.Filtered+c.Lost {
			complain("%v: seen %d is not the sum of %+v", class, c.Seen, c)
		}
	}
	if sum := l.Sum(); sum.Kept != l.Kept {
		complain("the rows kept %d, the pipeline says %d", sum.Kept, l.Kept)
	}
	if l.Kept != l.Decoded+l.Injected+l.Malformed+l.InRing {
		complain("kept %d is not decoded %d + injected %d + malformed %d + in ring %d", l.Kept, l.Decoded, l.Injected, l.Malformed, l.InRing)
	}
	if l.Malformed != 0 || l.InRing != 0 || l.Held != 0 {
		complain("at the end %d are malformed, %d in the ring, %d held", l.Malformed, l.InRing, l.Held)
	}
	if l.Decoded+l.Injected != l.Released+l.Held {
		complain("decoded %d + injected %d is not released %d + held %d", l.Decoded, l.Injected, l.Released, l.Held)
	}
	for name, x := range l.Exporters {
		if x.Released != l.Released {
			complain("exporter %s got %d events, %d were released", name, x.Released, l.Released)
		}
		if x.Released != x.Exported+x.QueueDropped+x.Failed+x.ScopedOut+x.Queued {
			complain("exporter %s: released %d is not the sum of %+v", name, x.Released, x)
		}
		if x.Queued != 0 {
			complain("exporter %s still has %d queued", name, x.Queued)
		}
	}
	return wrong
}
