package pluginhost

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatIsNotUrgentGoesWithWhatIsOrALittleLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue[int]()
		q.putLater(1) // nobody reads
		q.begin()
		var got [][]int
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for {
				items, _, _, err := q.take(ctx)
				if err != nil {
					return
				}
				got = append(got, items)
			}
		}()
		want := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if s := fmt.Sprint(got); s != want {
				t.Errorf("taken are %s, want %s", s, want)
			}
		}
		time.Sleep(1)
		synctest.Wait() // the reader waits
		q.putLater(2)
		q.putLater(3)
		want(leisure-1, "[]")
		q.put(4)
		want(0, "[[2 3 4]]")
		want(2*leisure, "[[2 3 4]]")
		q.putLater(5)
		want(leisure-1, "[[2 3 4]]")
		want(1, "[[2 3 4] [5]]")
		q.putLater(6)
		q.end()
		want(2*leisure, "[[2 3 4] [5]]")
		cancel()
		synctest.Wait()
	})
}
