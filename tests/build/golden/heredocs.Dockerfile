FROM busybox
RUN <<EOF
echo one
# not a comment \
FROM nowhere
EOF
RUN python3 <<-'END' && cat <<3 > /there
	print("$kept")
	END
second, up to a 3
3
COPY <<a.txt <<"b.txt" plain /to/
of $a
a.txt
of b
b.txt
RUN echo $((1 << 2)) x<<y "<<no" <<< here
ONBUILD RUN <<DONE
later
DONE
CMD cat
