package daemon

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/store"
)

// platform is how lock files call what this program is built for.
const platform = runtime.GOOS + "_" + runtime.GOARCH

// finder finds the plugins of a configuration and takes their files.
type finder struct {
	catalog *pluginhost.Catalog
	files   *store.Store
}

// finder copies into the store of a directory; "": it copies nothing.
func (o Options) finder(ctx context.Context, file *config.File, dir string) (*finder, error) {
	catalog, err := o.catalog(file)
	if err != nil {
		return nil, err
	}
	files, err := store.Open(ctx, dir, newLogger(o.Stderr, file.Config.Log))
	if err != nil {
		return nil, err
	}
	return &finder{catalog, files}, nil
}

func (f *finder) close() error { return f.files.Close() }

// find returns a plugin with its bundle, which the caller closes.
func (f *finder) find(ctx context.Context, ref config.PluginRef) (pluginhost.Entry, error) {
	entry, err := f.catalog.Find(ref.Kind, ref.Name)
	if err != nil {
		return entry, err
	}
	return entry, entry.Take(ctx, f.files)
}

// found is what find returned.
type found struct {
	entry pluginhost.Entry
	err   error
}

// findAll finds plugins, several at a time: most of the time goes into hashing. The
// caller closes the bundles of those that have one.
func (f *finder) findAll(ctx context.Context, refs []config.PluginRef) map[string]found {
	all := make([]found, len(refs))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, ref := range refs {
		group.Go(func() error {
			all[i].entry, all[i].err = f.find(ctx, ref)
			return nil // each plugin has its own
		})
	}
	_ = group.Wait() // as no function of it returns one
	byName := map[string]found{}
	for i, ref := range refs {
		byName[ref.String()] = all[i]
	}
	return byName
}

// lockedFiles are a plugin's hashes as lock files have them.
func lockedFiles(e pluginhost.Entry) config.LockedFiles {
	l := config.LockedFiles{Program: e.Bundle.Sums[e.Bundle.Name], Manifest: e.Bundle.Manifest, Files: map[string]string{}}
	for name, sum := range e.Bundle.Sums {
		if name != e.Bundle.Name {
			l.Files[name] = sum
		}
	}
	return l
}

// LockState is how a plugin stands to the lock file.
type LockState string

const (
	LockSame    LockState = "same"    // it is what is locked
	LockAdded   LockState = "new"     // it is not in the lock file, for this platform
	LockChanged LockState = "changed" // it is another than is locked
	LockUnknown LockState = "unknown" // it can't be read
)

// PluginLock is one plugin of the configuration and what is, or was, locked of it.
type PluginLock struct {
	Ref     config.PluginRef
	Version string // "": not known without running it
	State   LockState
	Now     config.LockedFiles // empty: it can't be read
	// Elsewhere are the platforms for which another version is locked.
	Elsewhere []string
}

// LockReport says what was found of every plugin that a configuration names.
type LockReport struct {
	File    string // the lock file
	Exists  bool   // before
	Plugins []PluginLock
}

// Changes counts the plugins that are not as locked.
func (r LockReport) Changes() int {
	n := 0
	for _, p := range r.Plugins {
		if p.State != LockSame {
			n++
		}
	}
	return n
}

// readLock reads a configuration and its lock file, both without a mistake.
func (o Options) readLock() (*config.File, *config.Lock, error) {
	file, found := config.ReadFile(o.ConfigFile)
	lock, more := config.ReadLock(o.ConfigFile)
	if found = config.Join(found, more); found.HasErrors() {
		return nil, nil, configError(o.ConfigFile, found)
	}
	return file, lock, nil
}

// VerifyLock holds every plugin against the lock file and runs nothing. When one is
// not as locked the error is a *ConfigError that says at its place what differs, and
// the report is whole nevertheless.
func VerifyLock(ctx context.Context, o Options) (LockReport, error) {
	file, lock, err := o.readLock()
	if err != nil {
		return LockReport{}, err
	}
	report := LockReport{File: lock.Name, Exists: lock.Exists}
	if !lock.Exists {
		return report, fmt.Errorf("there is no lock file %s: write it with 'ebpf-tracer plugin lock --config %s'", lock.Name, o.ConfigFile)
	}
	var found config.Diagnostics
	report.Plugins, found, err = o.compare(ctx, file, lock, true)
	if err == nil && found.HasErrors() {
		err = configError(o.ConfigFile, found)
	}
	return report, err
}

// CheckLock tells what LockPlugins would change. It runs nothing and writes nothing.
func CheckLock(ctx context.Context, o Options) (LockReport, error) {
	file, lock, err := o.readLock()
	if err != nil {
		return LockReport{}, err
	}
	report := LockReport{File: lock.Name, Exists: lock.Exists}
	var found config.Diagnostics
	report.Plugins, found, err = o.compare(ctx, file, lock, false)
	if err == nil && found.HasErrors() {
		err = configError(o.ConfigFile, found)
	}
	return report, err
}

// compare hashes every plugin where it lies. What can't be read is found, and, if
// they are asked for, what is not as locked.
func (o Options) compare(ctx context.Context, file *config.File, lock *config.Lock, differences bool) (all []PluginLock, found config.Diagnostics, err error) {
	f, err := o.finder(ctx, file, "")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	one := func(ref config.PluginRef) error {
		p := PluginLock{Ref: ref, State: LockUnknown}
		if l, ok := lock.Find(ref.Kind, ref.Name); ok {
			p.Version = l.Version
		}
		defer func() { all = append(all, p) }()
		entry, err := f.find(ctx, ref)
		if err != nil {
			return err
		}
		p.Now = lockedFiles(entry)
		p.State = lockState(lock, ref, p.Now)
		if err := entry.Bundle.Close(); err != nil {
			return err
		}
		if !differences || ref.Auto && p.State == LockAdded {
			return nil // what is not locked is not started by itself
		}
		return lock.Check(ref, platform, p.Now)
	}
	found, err = f.each(file, one)
	return all, found, err
}

// each calls check for every plugin that the configuration names, and for those that
// discoverer "auto" may start.
func (f *finder) each(file *config.File, check func(config.PluginRef) error) (config.Diagnostics, error) {
	found := file.EachPlugin(check)
	if file.Config.Auto == nil {
		return found, nil
	}
	refs, err := autoRefs(f.catalog, file)
	if err != nil {
		return found, err
	}
	var names []string
	for _, ref := range refs {
		// One whose manifest can't be read is for check to find.
		if e, err := f.catalog.Find(ref.Kind, ref.Name); err != nil || e.Manifest.Auto.Enabled {
			names = append(names, ref.Name)
		}
	}
	return config.Join(found, file.EachAuto(names, check)), nil
}

func lockState(lock *config.Lock, ref config.PluginRef, now config.LockedFiles) LockState {
	p, _ := lock.Find(ref.Kind, ref.Name)
	locked, ok := p.Platforms[platform]
	switch {
	case !ok:
		return LockAdded
	case locked.Equal(now):
		return LockSame
	}
	return LockChanged
}

// LockPlugins writes the lock file: every plugin that the configuration names, or that
// its discoverer "auto" may start, as it is now, on this platform. Those that are new or
// have changed are asked for their version. What the file has of other platforms and of
// other plugins stays. Unless all could be read and asked, nothing is written.
func LockPlugins(ctx context.Context, o Options) (report LockReport, err error) {
	file, lock, err := o.readLock()
	if err != nil {
		return report, err
	}
	report = LockReport{File: lock.Name, Exists: lock.Exists}
	ask, err := o.asker()
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, ask.close()) }()
	f, err := o.finder(ctx, file, o.storeDir())
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	found, err := f.each(file, func(ref config.PluginRef) error {
		p, err := lockPlugin(ctx, ask.Host, f, lock, ref)
		report.Plugins = append(report.Plugins, p)
		return err
	})
	switch {
	case err != nil:
		return report, err
	case found.HasErrors():
		return report, configError(o.ConfigFile, found)
	case report.Changes() == 0 && lock.Exists:
		return report, nil
	}
	return report, lock.Write()
}

// lockPlugin locks one plugin, if it is not what is locked.
func lockPlugin(ctx context.Context, host *pluginhost.Host, f *finder, lock *config.Lock, ref config.PluginRef) (p PluginLock, err error) {
	p = PluginLock{Ref: ref, State: LockUnknown}
	entry, err := f.find(ctx, ref)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, entry.Bundle.Close()) }()
	p.Now = lockedFiles(entry)
	locked, _ := lock.Find(ref.Kind, ref.Name)
	p.Version = locked.Version
	if p.State = lockState(lock, ref, p.Now); p.State == LockSame {
		return p, nil
	}
	said, err := host.Describe(ctx, entry)
	if err != nil {
		return p, err
	}
	p.Version = said.Version
	if locked.Version != said.Version {
		for other := range locked.Platforms {
			if other != platform {
				p.Elsewhere = append(p.Elsewhere, other)
			}
		}
		slices.Sort(p.Elsewhere)
	}
	lock.Set(ref.Kind, ref.Name, said.Version, entry.Manifest.Protocol, platform, p.Now)
	return p, nil
}
