package describe

import protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"

// Throttle is what a list of throttles has of a device, added where it has none yet: the
// runtimes list each kind of bound apart, the contract by device. It is nil when there is
// no room, which clip notes; at most MaxThrottles devices are told.
func Throttle(clip *Clip, list *[]*protov1.BlkioThrottle, device string) *protov1.BlkioThrottle {
	for _, t := range *list {
		if t.Device == device {
			return t
		}
	}
	if !clip.Room("limits", len(*list), MaxThrottles) {
		return nil
	}
	t := &protov1.BlkioThrottle{Device: device}
	*list = append(*list, t)
	return t
}
