package dynamodb

import "context"

// hasBackups reports whether there are backups of a tree.
func (d *Door) hasBackups(ctx context.Context, id string) (bool, error) { return false, nil }
