// Command report reads the output of go test -json and prints it as go test
// would without -json: a line for each package, and all that a failed test
// said. It then lists the tests that were skipped, by reason. It exits with 1
// if anything failed and, under CI=true, if a test was skipped without
// testenv.Skip, which alone knows whether a skip hides a failure.
//
// Nothing can import it, and it must not import rooms of the product. Start
// reading at report.
package main
