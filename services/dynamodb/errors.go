package dynamodb

import (
	"fmt"
	"strings"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// An Error is one that clients are told.
type Error struct {
	Type    string // such as "ValidationException"
	Message string
	Status  int // of HTTP; 400 when 0
	extra   func([]byte) []byte
}

func (e *Error) Error() string { return e.Type + ": " + e.Message }

// The name spaces of the types of errors.
const (
	coralService  = "com.amazon.coral.service#"
	coralValidate = "com.amazon.coral.validate#"
	ownSpace      = "com.amazonaws.dynamodb.v20120810#"
)

// full is the type as it is sent.
func (e *Error) full() string {
	switch e.Type {
	case "ValidationException":
		return coralValidate + e.Type
	case "SerializationException", "UnknownOperationException", "AccessDeniedException", "InvalidSignatureException",
		"IncompleteSignatureException", "MissingAuthenticationTokenException", "UnrecognizedClientException", "InternalFailure":
		return coralService + e.Type
	}
	return ownSpace + e.Type
}

// capital reports whether the message is called Message.
func (e *Error) capital() bool {
	return e.Type == "SerializationException" || e.Type == "AccessDeniedException" || e.Type == "TransactionCanceledException"
}

func invalid(format string, args ...any) *Error {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	return &Error{Type: "ValidationException", Message: format}
}

// badValues begins what is wrong with values.
const badValues = "One or more parameter values were invalid: "

// refuse makes an error of a complaint, if it is one.
func refuse(problem string) error {
	if problem == "" {
		return nil
	}
	return invalid(problem)
}

func notFound(message string) *Error {
	return &Error{Type: "ResourceNotFoundException", Message: message}
}

// errNoTable is for what is done with items.
var errNoTable = notFound("Requested resource not found")

func noTable(name string) *Error {
	return notFound("Requested resource not found: Table: " + name + " not found")
}

func inUse(message string) *Error {
	return &Error{Type: "ResourceInUseException", Message: message}
}

// conditionFailed is the error of a condition that was not met, with the item if
// that was asked for.
func conditionFailed(i item.Item) *Error {
	e := &Error{Type: "ConditionalCheckFailedException", Message: "The conditional request failed"}
	if i != nil {
		e.extra = func(b []byte) []byte { return i.AppendJSON(append(b, `,"Item":`...)) }
	}
	return e
}

func quoteAll(list []string) string { return "[" + strings.Join(list, ", ") + "]" }
