"""What `import bertshrink` offers: every command as a plain function, over the same recipe loop."""
