"""These tests cover evaluation: scores of label maps and instances, surfaces, rules, reports, folders."""
