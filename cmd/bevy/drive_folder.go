package main

import "context"

func (d *drive) putFolder(ctx context.Context, word string, in *putFile) error { return nil }
