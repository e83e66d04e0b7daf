package daemon

import "context"

func (d *daemon) serve(ctx context.Context, failed chan<- error) error { return nil }

func (d *daemon) stopServing() error { return nil }
