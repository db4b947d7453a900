package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// What a node is asked about apps, and about what they keep at its doors.
type (
	// App is who data belong to; the owner's own has no name.
	App struct {
		Name    string    `json:"name"`
		Created time.Time `json:"created,omitzero"`
		Keys    int       `json:"keys"`
		Tables  int       `json:"tables"`
		Buckets int       `json:"buckets"`
	}

	// Apps are the apps of the cloud.
	Apps struct {
		Apps []App `json:"apps"`
	}

	// AddApp makes an app.
	AddApp struct {
		Name string `json:"name"`
	}

	// AppName names an app.
	AppName struct {
		Name string `path:"app" json:"-"`
	}

	// OfApp asks about an app.
	OfApp struct {
		App string `query:"app" json:"-" doc:"its name; the owner's own app when empty"`
	}

	// Right lets a key do something.
	Right struct {
		Service string `json:"service,omitempty" doc:"s3 or dynamodb; both when empty"`
		Name    string `json:"name" doc:"of buckets or tables, with * for any letters"`
		Write   bool   `json:"write,omitempty"`
	}

	// AccessKey lets programs in at the doors.
	AccessKey struct {
		ID      string    `json:"id"`
		App     string    `json:"app,omitempty"`
		Secret  string    `json:"secret,omitempty"` // only when it is made
		Rights  []Right   `json:"rights"`
		Until   time.Time `json:"until,omitzero"`
		Over    bool      `json:"over,omitempty"` // its time has passed
		Note    string    `json:"note,omitempty"`
		Created time.Time `json:"created"`
	}

	// AccessKeys are the keys of an app.
	AccessKeys struct {
		Keys []AccessKey `json:"keys"`
	}

	// AddAccessKey makes a key.
	AddAccessKey struct {
		App    string    `json:"app,omitempty"`
		Rights []Right   `json:"rights,omitempty" doc:"everything in the app when empty"`
		Until  time.Time `json:"until,omitzero" doc:"for ever when it is left out"`
		Note   string    `json:"note,omitempty"`
	}

	// AccessKeyID names a key.
	AccessKeyID struct {
		ID string `path:"key" json:"-"`
	}

	// Environment is what programs for AWS have to know to use a node instead.
	Environment struct {
		Endpoint  string `json:"endpoint"`
		Region    string `json:"region"`
		AccessKey string `json:"accessKey"`
		Secret    string `json:"secret,omitempty"`
		App       string `json:"app,omitempty"`
	}

	// EnvironmentRequest asks for it.
	EnvironmentRequest struct {
		App string `json:"app,omitempty"`
	}

	// TableCall is an operation of DynamoDB; its body is that of the operation.
	TableCall struct {
		Operation string `path:"operation" json:"-" doc:"such as PutItem"`
		App       string `query:"app" json:"-"`
		At        string `query:"at" json:"-" doc:"a time, of RFC 3339: tables are read as they were then, the same each time"`
	}
)

// RestoringInfix is in the names of tables that are made for a moment, to restore
// another one in place. They are not among what was removed.
const RestoringInfix = ".bevy-restore-"

// DynamoDB asks the node's tables something, as their owner: in and out are those
// of an operation such as "PutItem".
func (c *Client) DynamoDB(ctx context.Context, app, operation string, in, out any) error {
	return c.DynamoDBAt(ctx, app, time.Time{}, operation, in, out)
}

// DynamoDBAt is DynamoDB of tables as they were at a time, or as they are if it is
// zero. Those that were can be read only, and nothing is written to read them: not
// even where this machine has never written to them.
func (c *Client) DynamoDBAt(ctx context.Context, app string, at time.Time, operation string, in, out any) error {
	query := url.Values{"app": {app}}
	if !at.IsZero() {
		query.Set("at", at.UTC().Format(time.RFC3339Nano))
	}
	return c.Do(ctx, http.MethodPost, "/dynamodb/"+url.PathEscape(operation)+"?"+query.Encode(), in, out)
}

// What a node is asked about buckets.
type (
	// Bucket is a folder that programs for S3 see.
	Bucket struct {
		Name    string    `json:"name"`
		Files   int       `json:"files"`
		Bytes   int64     `json:"bytes"`
		Created time.Time `json:"created,omitzero"` // not of folders that were made otherwise
	}

	// Buckets are those of an app.
	Buckets struct {
		Buckets []Bucket `json:"buckets"`
	}
)
