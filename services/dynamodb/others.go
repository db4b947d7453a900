package dynamodb

import (
	"context"
	"errors"
	"strings"
)

// What a cloud of one's own has no use for: replicas in other regions, streams into
// Kinesis, insights, and policies of resources. Clients that look for them are told
// that there are none.

var (
	resourceShape = []field{must(str("ResourceArn")), str("ExpectedRevisionId")}
	policyShape   = []field{must(str("ResourceArn")), must(str("Policy")), str("ExpectedRevisionId"), flag("ConfirmRemoveSelfResourceAccess")}
	pageShape     = []field{nameOf("TableName"), str("NextToken"), str("ExclusiveStartGlobalTableName"), str("RegionName")}
)

// resource finds the table, or the stream of one, that an ARN names.
func (d *Door) resource(ctx context.Context, arn string) error {
	name, _, _ := strings.Cut(strings.TrimPrefix(arn, d.arn("")), "/")
	t, err := d.use(ctx, name)
	if errors.Is(err, ErrNotFound) || !strings.HasPrefix(arn, d.arn("")) {
		return notFound("Requested resource not found: ResourceArn: " + arn + " not found")
	}
	if err == nil {
		d.release(t)
	}
	return err
}

func (d *Door) getResourcePolicy(ctx context.Context, r *request) ([]byte, error) {
	arn := r.str("ResourceArn")
	if err := d.resource(ctx, arn); err != nil {
		return nil, err
	}
	return nil, &Error{Type: "PolicyNotFoundException", Message: "Resource-based policy not found for the provided ResourceArn: " + arn}
}

func (d *Door) deleteResourcePolicy(ctx context.Context, r *request) ([]byte, error) {
	if err := d.resource(ctx, r.str("ResourceArn")); err != nil {
		return nil, err
	}
	if r.has("ExpectedRevisionId") {
		return nil, &Error{Type: "PolicyNotFoundException", Message: "Resource-based policy not found for the provided ResourceArn: " + r.str("ResourceArn")}
	}
	return []byte("{}"), nil
}

func (d *Door) putResourcePolicy(ctx context.Context, r *request) ([]byte, error) {
	if err := d.resource(ctx, r.str("ResourceArn")); err != nil {
		return nil, err
	}
	return nil, invalid("Policies of resources are not supported here: the rights of access keys say who may do what")
}

func (d *Door) describeKinesis(ctx context.Context, r *request) ([]byte, error) {
	return d.none(ctx, r, `{"TableName":`, `,"KinesisDataStreamDestinations":[]}`)
}

func (d *Door) describeInsights(ctx context.Context, r *request) ([]byte, error) {
	return d.none(ctx, r, `{"ContributorInsightsStatus":"DISABLED","TableName":`, `}`)
}

// none answers about a table that it has none of something.
func (d *Door) none(ctx context.Context, r *request, before, after string) ([]byte, error) {
	t, err := d.useNamed(ctx, r.str("TableName"))
	if err != nil {
		return nil, err
	}
	d.release(t)
	return []byte(before + `"` + r.str("TableName") + `"` + after), nil
}

func (d *Door) listInsights(context.Context, *request) ([]byte, error) {
	return []byte(`{"ContributorInsightsSummaries":[]}`), nil
}

func (d *Door) listGlobalTables(context.Context, *request) ([]byte, error) {
	return []byte(`{"GlobalTables":[]}`), nil
}
