package discover

import "testing"

func TestARuntimeCallsACgroupAfterItsContainer(t *testing.T) {
	for path, want := range map[string]bool{
		"/a":                              true,
		"/default/a":                      true,
		"/x.slice/cri-containerd-a.scope": true,
		"/x.slice/a.scope":                true,
		"/default/a/init":                 false,
		"/default/ba":                     false,
		"/default/b-a":                    false, // of a container b-a
		"/x.slice/ba.scope":               false,
		"/":                               false,
	} {
		if got := CalledAfter(path, "a"); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}
