// Package client is the Go API to a running daemon: what the CLI knows, from a
// program of your own.
//
//	c, err := client.Dial(ctx, client.DefaultSocket)
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	containers, err := c.ListContainers(ctx)
//
// What there may not be is an error that says so:
//
//	switch container, err := c.GetContainerByPID(ctx, pid); {
//	case err == nil:
//		fmt.Printf("process %d belongs to container %s\n", pid, container.GetContainer().GetName())
//	case !errors.Is(err, client.ErrNoContainer):
//		return err
//	}
//
// A program may have the daemon's policy decide on events of its own, too:
//
//	load, err := c.LoadManager(ctx)
//	if err != nil {
//		return err
//	}
//	defer load.Close()
//	if load.ShouldSample("http_request", map[string]string{"level": "error"}) {
//		load.RecordEvent()
//	}
//
// And it may say what is not wanted, for a time:
//
//	_, err := c.AddFilters(ctx, time.Hour, &protov1.Filter{Name: "scan", Peer: []string{"10.9.0.0/16"}})
//
// The daemon answers root and the user that it runs as itself. Errors are
// sentences for the user; ErrNotRunning, ErrPermission, ErrNoContainer, ErrNoProcess,
// ErrNoNamespace, ErrNoFilter and ErrNoRoom tell them apart. This package owns its connection and nothing else,
// prints nothing and never starts a daemon.
package client
