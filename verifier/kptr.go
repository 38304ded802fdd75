package verifier

// What is not there yet says so by name: pointers to kernel objects in maps.

func (v *verifier) kptrAccess(_ *reg, f *mapField, _ bool, _ *reg, _ int) *Error {
	return v.unsupported("pointers to kernel objects in maps (struct %s)", f.to.TypeName())
}

func (v *verifier) kptrArgument(_ *reg, _ int, meta *callMeta) *Error {
	return v.unsupported("%s", meta.helper.Name)
}

// checkFormat checks a format and the size of its arguments
// (check_bpf_snprintf_call).
func (v *verifier) checkFormat(f *reg, at int, size *reg) *Error {
	text, err := v.stringAt(f, at)
	if err != nil {
		return err
	}
	if size.typ == scalar && size.IsConst() && size.Bits.Value%8 != 0 {
		return v.fail("argument-format", at, "the arguments of the format take %d bytes, which is no multiple of 8", size.Bits.Value)
	}
	n := 0
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			continue
		}
		if i+1 < len(text) && text[i+1] == '%' {
			i++
			continue
		}
		n++
	}
	if size.typ == scalar && size.IsConst() && n > int(size.Bits.Value/8) {
		return v.fail("argument-format", at, "the format takes %d arguments, and %d are given", n, size.Bits.Value/8)
	}
	return nil
}
