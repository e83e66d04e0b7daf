package main

import (
	"strings"
)

const (
	service = ".service"
	scope   = ".scope"
	slice   = ".slice"
)

// unit is what the path of a control group says.
type unit struct {
	name  string // nginx.service
	slice string // system.slice; "": the root
	user  string // whose manager runs it, a uid; "": the system's
}

// isUnit tells whether a name is that of a unit that runs processes.
func isUnit(name string) bool {
	return strings.HasSuffix(name, service) || strings.HasSuffix(name, scope)
}

// parse reads the path of a control group, from the hierarchy's root. It is a unit's
// when it leads through slices alone, or through the manager of a user, who has units
// again. What a unit makes below its own group is no unit.
func parse(path string) (u unit, ok bool) {
	rest := strings.Trim(path, "/")
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		// systemd writes _ before a name that the kernel could take for a file.
		name = strings.TrimPrefix(name, "_")
		switch {
		case strings.HasSuffix(name, slice):
			u.slice = name
		case rest != "" && u.user == "" && manager(name) != "":
			u.user, u.slice = manager(name), ""
		case isUnit(name) && rest == "":
			u.name = name
			return u, true
		default:
			return unit{}, false
		}
	}
	return unit{}, false
}

// manager is the uid whose manager a unit is, "" when it is none.
func manager(name string) string {
	uid, ok := strings.CutPrefix(name, "user@")
	if !ok {
		return ""
	}
	uid, ok = strings.CutSuffix(uid, service)
	if !ok || uid == "" || strings.Trim(uid, "0123456789") != "" {
		return ""
	}
	return uid
}

// ofContainer tells whether a scope is a container's: its name ends in the container's
// id of 64 hex digits.
func ofContainer(name string) bool {
	id, ok := strings.CutSuffix(name, scope)
	if !ok {
		return false
	}
	id = id[strings.LastIndexByte(id, '-')+1:]
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}

// labels of a unit as a workload.
func (u unit) labels() map[string]string {
	l := map[string]string{"systemd.unit": u.name}
	if u.slice != "" {
		l["systemd.slice"] = u.slice
	}
	if u.user != "" {
		l["systemd.user"] = u.user
	}
	if template, instance, ok := strings.Cut(u.name, "@"); ok {
		at := strings.LastIndexByte(instance, '.')
		l["systemd.template"] = template + "@" + instance[at:]
		l["systemd.instance"] = instance[:at]
	}
	return l
}
