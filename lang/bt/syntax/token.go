package syntax

type token struct{}
